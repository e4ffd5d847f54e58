"""What the memory of a VM does with a swap device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import MapsCached, Steps, Vcpu
from vmsim.frames.records import MAX_ORDER, State
from vmsim.host.swap.pages import SwappedPages
from vmsim.host.swap.swap import Swap
from vmsim.jit import kernel
from vmsim.machine.formats import ENTRIES, PAGE_SHIFT
from vmsim.tables.backing import CACHED, CLEAN, SWAPPED, all_small, page_of
from vmsim.tables.pages import clear_pages, clear_words, find_words

__all__ = ["SwappableMemory"]

Words = NDArray[np.int64]


@kernel
def note_cached(words, backing, states, gfns, pfns):  # type: ignore[no-untyped-def]
    """Note that pages that are away lie in frames of the swap cache too, int64[n] each, and hold zeros.

    Those that may be page tables, by `states` (int8[frames], or empty), are left out.
    """
    for at in range(len(gfns)):
        if len(states) and states[gfns[at]] != State.TABLE:
            clear_words(words, pfns[at : at + 1])
            backing[gfns[at]] = pfns[at] << PAGE_SHIFT | CACHED | SWAPPED


class SwappableMemory:
    """The part of a `GuestMemory` that knows of swap, whose attributes these are.

    Attributes
    ----------
    states : int8[frames]
        What the guest uses each frame for (`State`); empty: that is not known, and any may be a page table.
    """

    backing: Words
    words: Words
    contents: dict[int, Words]
    swapped: SwappedPages | None
    swap: Words = np.empty(0, np.int64)
    states: NDArray[np.int8] = np.empty(0, np.int8)
    holds_table: Callable[[int], bool]

    def fill(self, pfn: int, held: Words | None) -> None:
        """Have a frame hold a page's words, int64[512], whatever it held before; None: zeros.

        A frame that was a table of somebody's holds its entries still when it is allocated again.
        """
        page = self.words[pfn << 9 : (pfn + 1) << 9]
        if held is not None:
            page[:] = held
        elif page.any():  # memory that was never written to stays so
            page[:] = 0

    def swap_to(self, swap: Swap) -> None:
        """Have pages that are taken go to a swap device from now on."""
        self.swapped = SwappedPages(swap, self)
        self.swap = swap.area.state

    def swapped_out(self, gfn: int) -> bool:
        """Whether a page is on the swap device, so that it has to be brought back before its frame is backed."""
        return self.swapped is not None and bool(self.backing[gfn] & SWAPPED)

    def cached(self, gfns: Words, pfns: Words) -> None:
        """Learn that pages that are away lie in frames of the swap cache too, int64[n] each, and hold zeros."""
        note_cached(self.words, self.backing, self.states, gfns, pfns)

    def uncached(self, gfns: Words) -> None:
        """Learn that they do no more."""
        away = gfns[self.backing[gfns] & SWAPPED != 0]
        self.backing[away] = SWAPPED

    def brought(self) -> None:
        """Note what compiled code has brought back."""
        if self.swapped:
            self.swapped.brought()

    def bring_swapped(
        self, vcpu: Vcpu, gfn: int, *, write: bool, commit: MapsCached | None = None
    ) -> Steps[tuple[int, bool]]:
        """Bring a page back from the swap device, to be written to or not; return the cycles, and whether it is mapped.

        The vCPU waits until it is there, in a frame of the VM's that nothing maps yet, unless `commit` could. A table
        is written to by whoever walks it: it sets flags.

        Raises
        ------
        VmStopped
            It cannot be read.
        """
        assert self.swapped
        return (yield from self.swapped.bring(vcpu, gfn, write=write or self.holds_table(gfn), commit=commit))

    def clean(self, gfn: int) -> bool:
        """Whether the swap device has what a page holds, so that nobody may write to it unasked."""
        return bool(self.backing[gfn] & CLEAN)

    def soil(self, gfn: int) -> None:
        """Let a clean page be written to: its slot is given up (mm/memory.c, wp_page_reuse)."""
        assert self.swapped
        self.swapped.forget(gfn)

    @property
    def tables(self) -> int:
        """How many numbers tables of a process have that map its memory: those of 512 entries."""
        return (len(self.backing) + ENTRIES - 1) // ENTRIES

    def tables_of(self, numbers: Words) -> Words:
        """Return the number of the table that maps each of some pages, int64[n]."""
        return numbers // ENTRIES

    def entries_of(self, tables: Words, mapping: Words) -> Words:
        """Return how many entries some tables have, int64[n], of which so many, `mapping`, map pages."""
        return np.minimum(len(self.backing) - tables * ENTRIES, ENTRIES)

    def around(self, number: int, count: int) -> Words:
        """Return `count` pages around one, fewer at the ends of its table (mm/vmscan.c, lru_gen_look_around)."""
        table = number - number % ENTRIES
        return _around(number, count, table, min(table + ENTRIES, len(self.backing)))

    @property
    def away_count(self) -> int:
        """Pages on the swap device."""
        return self.swapped.count if self.swapped else 0

    def whole(self, numbers: Words) -> Words:
        """Return all guest frames of the pages that some frames lie in, int64[n] ascending."""
        if all_small(self.backing, numbers):
            return np.sort(numbers)
        pages = [page_of(self.backing, gfn, MAX_ORDER) for gfn in numbers.tolist()]
        orders = [page[1] if page else 0 for page in pages]
        return np.unique(
            [
                (gfn & -(1 << order)) + at
                for gfn, order in zip(numbers.tolist(), orders, strict=True)
                for at in range(1 << order)
            ]
        )

    def _clear(self, gfns: Words, pfns: Words, *, keep: bool) -> None:
        """Write zeros over pages that are about to go; note what they held if that is to be kept."""
        held = np.empty(len(pfns), np.bool_)
        find_words(self.words, pfns, held)
        if keep:
            for gfn, pfn in zip(gfns[held].tolist(), pfns[held].tolist(), strict=True):
                self.contents[gfn] = self.words[pfn << 9 : (pfn + 1) << 9].copy()
        clear_pages(self.words, pfns[held])

    def _leave_swap(self, first: int, count: int, to: int) -> None:
        """Forget what the swap device has of frames that lose their contents."""
        assert self.swapped
        gfns = first + np.flatnonzero(self.backing[first : first + count])
        self.swapped.forget_each(gfns)
        self.backing[gfns[self.backing[gfns] & SWAPPED != 0]] = to


def _around(number: int, count: int, first: int, limit: int) -> Words:
    """Return `count` numbers around one, all of [first, limit) if that has no more."""
    if limit - first > count:
        if number - first < count // 2:
            limit = first + count
        elif limit - number < count // 2:
            first = limit - count
        else:
            first, limit = number - count // 2, number + count // 2
    return np.arange(first, limit)
