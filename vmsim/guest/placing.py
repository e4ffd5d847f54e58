"""How a kernel puts a frame where a page is missing: how large a one, and what a file has around it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Compacts, Frames, Mmu, Steps, Vcpu
from vmsim.frames.records import NO_FRAME
from vmsim.guest.huge import HugePages
from vmsim.guest.process_calls import ProcessCalls
from vmsim.guest.regions import around_in_file
from vmsim.guest.spaces import Space, Swapped
from vmsim.guest.zeros import ZeroPages
from vmsim.machine.formats import DIRTY, LARGE_ORDERS, PAGE_SHIFT, WRITE
from vmsim.tables.edit import BLOCKED, missing_tables

__all__ = ["Placing"]

_ALL = 1 << 48  # frames, more than any VM has
_FEW = 256  # free frames below which nothing is mapped that was not asked for


class Placing(ProcessCalls):
    """What a kernel does with frames that it takes for a page fault.

    Attributes
    ----------
    compaction : Compacts or None
        Who makes blocks for huge pages by moving others; None: nobody.
    """

    memory: NDArray[np.int64]
    page_order: int
    huge: HugePages | None
    compaction: Compacts | None = None
    mmu: Mmu
    frames: Frames
    zeros: ZeroPages
    hints: Any
    _operates: bool  # compiled code carries out system calls
    _demand: NDArray[Any]  # what compiled code may do, by CPU
    _levels: int
    _least = 0
    _takes_none = False

    def swap_to(self, swapped: Swapped) -> None:
        """Learn that pages of its processes may be swapped out: what they ask for concerns those too."""
        self.spaces.swapped = swapped
        self._operates = False
        self.hold_back()

    def watch(self, hints: Any) -> None:
        """Learn who takes entries' rights for the next access to be noticed, a `granting.Hints`."""
        self.hints = hints

    def keep_free(self, frames: int) -> None:
        """Have compiled code take no page where fewer frames would be free: the kernel is to reclaim some then."""
        self._least = frames
        self.take_none(on=self._takes_none)

    def take_none(self, *, on: bool) -> None:
        """Have compiled code take no page at all, or as before: the kernel is to ask the host for it first."""
        self._takes_none = on
        self._demand["least"] = _ALL if on else self._least

    def hold_back(self) -> None:
        """Have compiled code do nothing until it has been told anew what it may."""
        for cpu in range(len(self.current)):
            self._expect_nothing(cpu)

    def swap_in(self, vcpu: Vcpu, space: Space, gva: int, bits: int, *, write: bool) -> Steps[None]:
        """Have the host bring a page back, and map it; nothing is mapped if it has come back already.

        Whoever wants to change the regions waits until it is read; Linux lets go of the mmap_lock meanwhile
        (mm/memory.c, do_swap_page and folio_lock_or_retry).
        """
        assert self.spaces.swapped
        page, dirty = yield from self.spaces.swapped.bring(vcpu, space, gva >> PAGE_SHIFT, write=write)
        if page != NO_FRAME:
            yield from self._put(vcpu, space, gva, 0, page, bits | (DIRTY if dirty else 0))

    def _put(
        self, vcpu: Vcpu, space: Space, gva: int, order: int, page: int, bits: int, *, cached: bool = False
    ) -> Steps[bool]:
        """Map a page, of the page cache or just cleared; if another is there already, give it back and return False.

        One that is on the swap device is there: it was mapped, and taken, while this vCPU waited for its frame
        (mm/memory.c, do_anonymous_page, which looks at the entry again once it has its lock).
        """
        if self.mmu.traps and not cached:
            yield from self.mmu.clear(vcpu, page << PAGE_SHIFT, order, table=False)
        where = space.root, gva, order // 9 + 1, page, bits
        if not (space.entries.writing or _is_away(space, gva, order)) and self.tables.map_at_once(*where):
            return True
        with (yield from self._entries(vcpu, space)):
            mapped = not _is_away(space, gva, order) and (yield from self.tables.map(vcpu, *where))
        if not mapped:
            self.frames.give(np.array([page]), order)
        return mapped

    def _put_zeros(self, vcpu: Vcpu, space: Space, gva: int, order: int, bits: int) -> Steps[bool]:
        """Map a page of zeros to be read; return False if something is mapped already (mm/memory.c, pte_none)."""
        frame, order = yield from self.zeros.take(vcpu, order)
        with (yield from self._entries(vcpu, space)):
            where = space.root, gva, order // 9 + 1, frame, bits & ~WRITE
            mapped = not _is_away(space, gva, order) and (yield from self.tables.map(vcpu, *where))
            if mapped:
                self.sharing.add(np.array([frame]), order)
        return mapped

    def _around(self, vcpu: Vcpu, space: Space, gva: int, bits: int) -> Steps[None]:
        """Map what a file has around a page that was read, while there is memory."""
        for page in around_in_file(space.regions, gva, self.tables.span(2)):
            if self.frames.zone["free"][0] < _FEW:
                return
            if (yield from self.tables.find(vcpu, space.root, page)).value == 0:
                frame = yield from self.frames.allocate_cached(vcpu)
                vcpu.owe("guest_fault", self.costs.entry_edit)
                yield from self._put(vcpu, space, page, 0, frame, bits, cached=True)

    def _order_for(self, vcpu: Vcpu, space: Space, gva: int, kind: int, zeros: bool) -> Steps[int]:
        """Return the order of the page to map at `gva`, in a region of a kind; a block may be made for it."""
        if self.huge is None:
            return self._order_at(space, gva, zeros)
        if not self.huge.allowed(kind):
            return 0
        order = self._order_at(space, gva, zeros)
        if not order and self._fits(space, gva, self.page_order):
            if self.compaction and self.huge.compacts(kind):
                yield from self.compaction.compact(vcpu, self.page_order)
                order = self._order_at(space, gva, zeros)
            elif self.compaction and self.huge.wakes(kind):
                self.compaction.wake(self.page_order)
        if not order and self._fits(space, gva, self.page_order):
            self.huge.counts["thp_fault_fallback"] += 1
        return order

    def _fits(self, space: Space, gva: int, order: int) -> bool:
        """Whether the regions and the tables have room for a page of 2**order frames around `gva`."""
        missing = missing_tables(self.memory, space.root, self._levels, order // 9 + 1, self.tables.backing, gva)
        size = 1 << (PAGE_SHIFT + order)
        start = gva & -size
        return bool(missing != BLOCKED and space.regions.alike(start, start + size))

    def _order_at(self, space: Space, gva: int, zeros: bool = False) -> int:
        """Return the order of the page to map at `gva`: the largest that there is a block and room for."""
        for order in LARGE_ORDERS[self.page_order]:
            there = zeros and self.zeros.ready(order)
            if self._fits(space, gva, order) and (
                there or self.frames.has_block(order)
            ):  # asked last: a host notes what it could not give
                return order
        return 0


def _is_away(space: Space, gva: int, order: int) -> bool:
    """Whether any of 2**order pages around an address is on the swap device."""
    first = gva >> PAGE_SHIFT & -(1 << order)
    return bool(space.away) and any(number in space.away for number in range(first, first + (1 << order)))
