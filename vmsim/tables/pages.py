"""What is done to many pages at once, each of which lies in a frame of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel
from vmsim.machine.formats import ENTRIES, PAGE_SHIFT
from vmsim.machine.memory import write_entry

Words = NDArray[np.int64]

__all__ = ["clear_entries", "clear_pages", "clear_words", "find_words", "move_words", "places_of"]


def places_of(records: Any, pages: Words, levels: int, width: int) -> tuple[Words, Words]:
    """Return where the pages in some frames, int64[n], are mapped: the tables' roots, and the pages' numbers there.

    By the reverse map: of a page the place of its entry, of a table that of the entry that leads to it.
    """
    places = records["rmap"][pages].astype(np.int64)
    numbers = np.zeros(len(pages), np.int64)
    size = 4 if width == 10 else 8
    for level in range(levels):
        numbers |= ((places & 0xFFF) // size) << (width * level)
        if level + 1 < levels:
            places = records["rmap"][places >> PAGE_SHIFT].astype(np.int64)
    return places & -(1 << PAGE_SHIFT), numbers


def move_words(memory: Words, old: int, new: int) -> None:
    """Have a frame hold what another did, and that hold zeros; memory that was never written to stays so."""
    source, target = (memory[pfn * ENTRIES : (pfn + 1) * ENTRIES] for pfn in (old, new))
    if (source != target).any():
        target[:] = source
        source[:] = 0


@kernel
def find_words(memory, pfns, found):
    """Say which of some frames, int64[n], hold anything but zeros: `found`, bool[n]."""
    for at in range(len(pfns)):
        first = pfns[at] * ENTRIES
        found[at] = False
        for word in range(first, first + ENTRIES):
            if memory[word]:
                found[at] = True
                break


@kernel
def clear_pages(memory, pfns):
    """Write zeros to some frames, int64[n]."""
    for at in range(len(pfns)):
        first = pfns[at] * ENTRIES
        memory[first : first + ENTRIES] = 0


@kernel
def clear_words(memory, pfns):
    """Have some frames, int64[n], hold zeros; memory that was never written to stays so."""
    for at in range(len(pfns)):
        first = pfns[at] * ENTRIES
        for word in range(first, first + ENTRIES):
            if memory[word]:
                memory[first : first + ENTRIES] = 0
                break


@kernel
def clear_entries(memory, places, width):
    """Clear the entries at some places (hpas, int64[n])."""
    for at in range(len(places)):
        write_entry(memory, places[at], 0, width)
