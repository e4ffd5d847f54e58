"""Which slots are read beside the one that is wanted (Linux mm/swap_state.c).

Where something turns, those around it on the device (swap_cluster_readahead); else those of the pages around it in the
memory (swap_vma_readahead), in the direction in which faults have gone, those that the same page table maps. How many
follows from how many of the last ones were wanted. A page that is found in the swap cache is a fault, too
(swap_cache_get_folio).
"""

from __future__ import annotations

from vmsim.machine.formats import ENTRIES

__all__ = ["MAX_ORDER", "Window", "around_slot", "window_size"]

MAX_ORDER = 5  # of a window by pages (SWAP_RA_ORDER_CEILING)


def window_size(previous: int, number: int, hits: int, most: int, before: int) -> int:
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
        pages = max(4, 1 << (pages - 1).bit_length())
    return max(min(pages, most), before // 2)


class Window:
    """What is remembered from fault to fault: of a memory, or of a device.

    Attributes
    ----------
    previous : int
        The page of the last fault.
    hits : int
        Pages that were read ahead and wanted since the last one that was read.
    """

    def __init__(self) -> None:
        self.previous = 0
        self.hits = 4  # as if some had been (GET_SWAP_RA_VAL)
        self._pages = 0

    def around(self, number: int, most: int) -> range:
        """Return the pages to be read around page `number` of a memory (swap_vma_ra_win)."""
        if most <= 1:
            return range(number, number + 1)
        hits, self.hits = self.hits, 0
        pages = self._pages = window_size(self.previous, number, hits, most, self._pages)
        before, self.previous = self.previous, number
        if pages == 1:
            return range(number, number + 1)
        if number == before + 1:
            first = number
        elif before == number + 1:
            first = number - pages + 1
        else:
            first = number - (pages - 1) // 2
        table = number & -ENTRIES
        return range(max(first, table), min(first + pages, table + ENTRIES))

    def aligned(self, slot: int, most: int) -> range:
        """Return the slots to be read with one (swapin_nr_pages, swap_cluster_readahead)."""
        if most <= 1:
            return range(slot, slot + 1)
        hits, self.hits = self.hits, 0
        pages = window_size(self.previous, slot, hits, most, self._pages)
        if not hits:
            self.previous = slot
        self._pages = pages
        return around_slot(slot, pages)


def around_slot(slot: int, pages: int) -> range:
    """Return the aligned slots around one; `pages` is a power of two, or is made one downwards."""
    mask = pages - 1
    return range(slot & ~mask, (slot | mask) + 1)
