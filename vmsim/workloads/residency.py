"""How many pages a stream has mapped at once: less than it touches ever, where it gives pages back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vmsim.workloads.stream import PAGE, Addresses, Chunk, Event, Op

__all__ = ["most_at_once"]


def most_at_once(chunks: Iterable[Chunk]) -> int:
    """Return the most bytes of pages, touched and not yet given back, that a stream's first process has at a time.

    Pages that a fork copies and pages that are populated but not touched are not counted, nor are tables.
    """
    pages = np.empty(0, np.int64)  # sorted
    most = heap = 0
    for chunk in chunks:
        first = 0
        for event in (*chunk.events, None):
            limit = event.position if event else len(chunk.address)
            if limit > first:
                pages = np.union1d(pages, chunk.address[first:limit] // PAGE)
                most = max(most, len(pages))
            first = limit
            if event is None or event.pid != 1:
                continue
            if event.op == Op.BRK:
                if event.address < heap:
                    pages = _without(pages, event.address, heap - event.address)
                heap = event.address
            else:
                pages = _after(event, pages)
    return most * PAGE


def _after(event: Event, pages: Addresses) -> Addresses:
    """Return what is left of pages after an operation."""
    match event.op:
        case Op.MAP | Op.UNMAP:
            return _without(pages, event.address, event.length)
        case Op.DISCARD if event.argument == 0:
            return _without(pages, event.address, event.length)
        case Op.MOVE:
            low, high = np.searchsorted(pages, [event.address // PAGE, (event.address + event.length) // PAGE])
            moved = pages[low:high] + (event.argument - event.address) // PAGE
            rest = _without(_without(pages, event.address, event.length), event.argument, event.length)
            return np.union1d(rest, moved)
        case Op.EXEC:
            return pages[:0]
    return pages


def _without(pages: Addresses, address: int, length: int) -> Addresses:
    first, last = -(-address // PAGE), -(-(address + length) // PAGE)
    low, high = np.searchsorted(pages, [first, last])
    return np.delete(pages, slice(low, high)) if high > low else pages
