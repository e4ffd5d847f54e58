"""How a kernel puts a frame where a page is missing, and what a file has around it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Frames, Mmu, Steps, Vcpu
from vmsim.frames.records import NO_FRAME
from vmsim.guest.process_calls import ProcessCalls
from vmsim.guest.regions import around_in_file
from vmsim.guest.spaces import Space, Swapped
from vmsim.guest.zeros import ZeroPages
from vmsim.machine.formats import DIRTY, PAGE_SHIFT, WRITE

__all__ = ["Placing"]

_ALL = 1 << 48  # frames, more than any VM has
_FEW = 256  # free frames below which nothing is mapped that was not asked for


class Placing(ProcessCalls):
    """What a kernel does with frames that it has taken for a page fault."""

    mmu: Mmu
    frames: Frames
    zeros: ZeroPages
    hints: Any
    _operates: bool  # compiled code carries out system calls
    _demand: NDArray[Any]  # what compiled code may do, by CPU
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
        """Map a page, of the page cache or just cleared; if another is there already, give it back and return False."""
        if self.mmu.traps and not cached:
            yield from self.mmu.clear(vcpu, page << PAGE_SHIFT, order, table=False)
        where = space.root, gva, order // 9 + 1, page, bits
        if not space.entries.writing and self.tables.map_at_once(*where):
            return True
        with (yield from self._entries(vcpu, space)):
            mapped = yield from self.tables.map(vcpu, *where)
        if not mapped:
            self.frames.give(np.array([page]), order)
        return mapped

    def _put_zeros(self, vcpu: Vcpu, space: Space, gva: int, order: int, bits: int) -> Steps[bool]:
        """Map a page of zeros to be read; return False if something is mapped already (mm/memory.c, pte_none)."""
        frame, order = yield from self.zeros.take(vcpu, order)
        with (yield from self._entries(vcpu, space)):
            mapped = yield from self.tables.map(vcpu, space.root, gva, order // 9 + 1, frame, bits & ~WRITE)
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
