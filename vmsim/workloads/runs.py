"""From single accesses to chunks of runs, and from runs to the regions they touch."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np

from vmsim.base.errors import InputError
from vmsim.workloads.stream import CHUNK, PAGE, Addresses, Chunk, Counts, Event, Kinds, Op, Regions

__all__ = ["GRANULES", "MOST_EVENTS", "MOST_RUNS", "PageSet", "RunBuilder", "check_granule", "cut"]

GRANULES = (PAGE, 64)
MOST_RUNS = MOST_EVENTS = 1 << 20  # in a chunk
_MANY_EVENTS = 1 << 14  # after which a chunk ends where it is


def check_granule(granule: int) -> None:
    """Refuse a granule that is neither a page nor a cache line."""
    if granule not in GRANULES:
        raise InputError(f"granule = {granule!r}: expected {' or '.join(map(str, GRANULES))} bytes.")


class RunBuilder:
    """Joins consecutive accesses of one kind to one block into runs, and cuts the runs into chunks.

    Where chunks end does not depend on how the accesses were handed over.

    Parameters
    ----------
    granule : int
        Bytes of a block: 4096, or 64.
    chunk : int
        Runs in every chunk but the last.
    """

    def __init__(self, granule: int, chunk: int = CHUNK) -> None:
        check_granule(granule)
        self._mask = -granule
        self._chunk = chunk
        self._filled = 0  # runs that wait in the buffers below
        self._joins = 0  # the first run that may still grow
        self._address = np.empty(2 * chunk, np.int64)
        self._count = np.empty(2 * chunk, np.int32)
        self._kind = np.empty(2 * chunk, np.uint8)
        self._events: list[Event] = []
        self._full = 0  # where a chunk is to end because it has many events; 0: nowhere
        self._threads: dict[Hashable, int] = {}
        self._running = 0

    def add(self, address: Addresses, count: Counts, kind: Kinds) -> list[Chunk]:
        """Take accesses (int64[n], int32[n] ≥ 1, uint8[n]); return the chunks that they complete."""
        from vmsim.workloads.blocks import coalesce

        done: list[Chunk] = []
        if self._full and len(address):
            done.append(self._take(self._full))
        for first in range(0, len(address), self._chunk):
            piece = slice(first, first + self._chunk)
            self._filled = int(
                coalesce(
                    address[piece],
                    count[piece],
                    kind[piece],
                    np.int64(self._mask),
                    np.int64(self._joins),
                    np.int64(self._filled),
                    self._address,
                    self._count,
                    self._kind,
                )
            )
            # the last run may grow yet: a chunk is complete when another run has begun after it
            if self._filled > self._chunk:
                done.append(self._take(self._chunk))
        return done

    def event(self, op: Op, pid: int, address: int = 0, length: int = 0, argument: int = 0) -> None:
        """Put an event after the accesses taken so far."""
        if len(self._events) >= MOST_EVENTS:
            raise InputError(f"more than {MOST_EVENTS:,} operations without an access between them: this is no trace.")
        self._events.append(Event(self._filled, op, pid, address, length, argument))
        self._joins = self._filled
        if len(self._events) >= _MANY_EVENTS:
            self._full = self._filled

    def thread(self, name: Hashable, pid: int = 1) -> None:
        """Say which thread makes what follows; threads are numbered in order of appearance."""
        number = self._threads.setdefault(name, len(self._threads))
        if number != self._running:
            self._running = number
            self.event(Op.THREAD, pid, argument=number)

    def rest(self) -> list[Chunk]:
        """Return what is left, at the end of the stream: no chunk or one."""
        return [self._take(self._filled)] if self._filled or self._events else []

    def _take(self, runs: int) -> Chunk:
        inside = tuple(event for event in self._events if event.position <= runs)
        self._events = [
            Event(e.position - runs, e.op, e.pid, e.address, e.length, e.argument) for e in self._events[len(inside) :]
        ]
        chunk = Chunk(self._address[:runs].copy(), self._count[:runs].copy(), self._kind[:runs].copy(), inside)
        for column in (self._address, self._count, self._kind):
            column[: self._filled - runs] = column[runs : self._filled].copy()
        self._filled -= runs
        self._full = 0
        self._joins = max(0, self._joins - runs)
        return chunk


def cut(chunk: Chunk, accesses: int) -> Chunk:
    """Return the first `accesses` accesses of a chunk (0 < accesses ≤ its total), and the events among them."""
    ends = np.cumsum(chunk.count, dtype=np.int64)
    runs = int(np.searchsorted(ends, accesses)) + 1
    count = chunk.count[:runs].copy()
    count[-1] -= ends[runs - 1] - accesses
    events = tuple(event for event in chunk.events if event.position < runs)
    return Chunk(chunk.address[:runs].copy(), count, chunk.kind[:runs].copy(), events)


class PageSet:
    """The set of pages touched, in memory proportional to their number.

    Sorted arrays of distinct pages are kept, each at most half as long as the one before, and merged as in a binary
    counter: a page is moved only a logarithmic number of times.
    """

    def __init__(self) -> None:
        self._sorted: list[Addresses] = []

    def add(self, address: Addresses) -> None:
        """Take the pages of some addresses."""
        new = np.unique(address >> 12)
        while self._sorted and len(self._sorted[-1]) <= 2 * len(new):
            new = np.union1d(self._sorted.pop(), new)
        self._sorted.append(new)

    def pages(self) -> Addresses:
        """Return the page numbers, sorted, int64[pages]."""
        while len(self._sorted) > 1:
            self._sorted.append(np.union1d(self._sorted.pop(), self._sorted.pop()))
        return self._sorted[0] if self._sorted else np.empty(0, np.int64)

    def regions(self) -> Regions:
        """Return starts and lengths in bytes of the coalesced regions."""
        return coalesced(self.pages())


def coalesced(pages: Addresses) -> Regions:
    """Join sorted page numbers into regions: starts and lengths in bytes, int64 each."""
    breaks = np.flatnonzero(np.diff(pages) != 1) + 1
    starts = np.concatenate(([0], breaks)) if len(pages) else breaks
    lengths = np.diff(np.concatenate((starts, [len(pages)]))) if len(pages) else breaks
    return pages[starts] * PAGE, lengths.astype(np.int64) * PAGE


def totals(chunks: Iterable[Chunk]) -> tuple[int, Regions]:
    """Read a stream through; return its number of accesses and the regions it touches."""
    accesses = 0
    pages = PageSet()
    for chunk in chunks:
        accesses += int(chunk.count.sum(dtype=np.int64))
        pages.add(chunk.address)
    return accesses, pages.regions()
