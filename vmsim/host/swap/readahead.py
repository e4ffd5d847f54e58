"""Which slots are read beside the one that is wanted (Linux mm/swap_state.c).

Where something turns, those around it on the device (swap_cluster_readahead); else those of the pages around it in the
memory (swap_vma_readahead), in the direction in which faults have gone, those that the same page table maps. How many
follows from how many of the last ones were wanted. A page that is found in the swap cache is a fault, too
(swap_cache_get_folio).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from vmsim.jit import leaf
from vmsim.machine.formats import ENTRIES

__all__ = ["MAX_ORDER", "Window", "around_slot", "note_found", "turn_to", "window_of", "window_size"]

MAX_ORDER = 5  # of a window by pages (SWAP_RA_ORDER_CEILING)


class _Place(IntEnum):
    """Places in the words of a window."""

    PREVIOUS = 0
    HITS = 1
    PAGES = 2
    FIRST = 3  # what is to be read: from here
    LIMIT = 4  # to here
    SIZE = 5


@leaf
def window_size(previous, number, hits, most, before):  # type: ignore[no-untyped-def]
    """Return how many pages are read (mm/swap_state.c, __swapin_nr_pages).

    Parameters
    ----------
    previous, number : int
        Where the last fault was, and where this one is.
    hits : int
        Pages that were read ahead and wanted since.
    most : int
        Pages at most.
    before : int
        The window of the last fault.
    """
    pages = hits + 2
    if pages == 2:
        if number not in (previous + 1, previous - 1):
            pages = 1
    else:
        wanted, pages = pages, 4
        while pages < wanted:
            pages *= 2
    return max(min(pages, most), before // 2)


@leaf
def turn_to(words, number, most):  # type: ignore[no-untyped-def]
    """Find the pages to be read around page `number` of a memory (swap_vma_ra_win), and note them in a window's words.

    Parameters
    ----------
    words : int64[_Place.SIZE]
        The window's.
    number, most : int
        The page that is wanted, and how many are read at most.
    """
    words[_Place.FIRST], words[_Place.LIMIT] = number, number + 1
    if most <= 1:
        return
    hits, before = words[_Place.HITS], words[_Place.PREVIOUS]
    pages = window_size(before, number, hits, most, words[_Place.PAGES])
    words[_Place.HITS], words[_Place.PREVIOUS], words[_Place.PAGES] = 0, number, pages
    if pages == 1:
        return
    if number == before + 1:
        first = number
    elif before == number + 1:
        first = number - pages + 1
    else:
        first = number - (pages - 1) // 2
    table = number & -ENTRIES
    words[_Place.FIRST], words[_Place.LIMIT] = max(first, table), min(first + pages, table + ENTRIES)


@leaf
def window_of(words):  # type: ignore[no-untyped-def]
    """Return the first of the pages that are to be read, and the first after them."""
    return words[_Place.FIRST], words[_Place.LIMIT]


@leaf
def note_found(words, number, ahead, turns):  # type: ignore[no-untyped-def]
    """Note that a page was wanted last, and how many had been read ahead that were; `turns`: by slots, not by pages."""
    words[_Place.HITS] += ahead
    if not turns:
        words[_Place.PREVIOUS] = number


class Window:
    """What is remembered from fault to fault: of a memory, or of a device.

    Attributes
    ----------
    words : int64[_Place.SIZE]
        The page of the last fault; pages that were read ahead and wanted since the last one that was read; how many
        pages that window had, and which there are in the current one.
    """

    def __init__(self) -> None:
        self.words = np.zeros(_Place.SIZE, np.int64)
        self.words[_Place.HITS] = 4  # as if some had been (GET_SWAP_RA_VAL)

    def around(self, number: int, most: int) -> range:
        """Return the pages to be read around page `number` of a memory."""
        turn_to(self.words, number, most)
        return range(*map(int, window_of(self.words)))

    def found(self, number: int, ahead: int, *, turns: bool) -> None:
        """Note that a page was wanted last, and how many had been read ahead that were."""
        note_found(self.words, number, ahead, turns)

    def aligned(self, slot: int, most: int) -> range:
        """Return the slots to be read with one (swapin_nr_pages, swap_cluster_readahead)."""
        if most <= 1:
            return range(slot, slot + 1)
        previous, hits, before = self.words[: _Place.FIRST].tolist()
        pages = int(window_size(previous, slot, hits, most, before))
        self.words[: _Place.FIRST] = previous if hits else slot, 0, pages
        return around_slot(slot, pages)


def around_slot(slot: int, pages: int) -> range:
    """Return the aligned slots around one; `pages` is a power of two, or is made one downwards."""
    mask = pages - 1
    return range(slot & ~mask, (slot | mask) + 1)
