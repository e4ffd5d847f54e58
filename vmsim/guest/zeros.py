"""The page of zeros, which reads of memory that nothing was written to map: one for all readers of a guest.

Linux: mm/memory.c, do_anonymous_page (ZERO_PAGE); mm/huge_memory.c, do_huge_pmd_anonymous_page (the huge one, by
default: transparent_hugepage/use_zero_page). hugetlbfs, from which pages of 1 GiB come, has none (mm/hugetlb.c,
hugetlb_no_page).
"""

from __future__ import annotations

import numpy as np

from vmsim.contracts import Frames, Mmu, Steps, Vcpu
from vmsim.frames.records import NO_FRAME
from vmsim.guest.sharing import Sharing
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.scenario.cpu import Cost

__all__ = ["ZeroPages"]

_LARGEST = 10  # order above which there is no page of zeros


class ZeroPages:
    """The page of zeros and the huge one of a guest's kernel; whoever writes to one gets a page of its own.

    The kernel itself counts as the first to map them, so that none is ever anybody's alone.

    Parameters
    ----------
    used : bool
        Whether reads map them. If not, the first access to a page gives it a frame of its own, whatever it is.

    Attributes
    ----------
    small, large, order : int
        First frames, NO_FRAME before they are made; the order of the large one.
    """

    def __init__(self, frames: Frames, mmu: Mmu, sharing: Sharing, costs: Cost, *, used: bool) -> None:
        self.used = used
        self.small = self.large = NO_FRAME
        self.order = 0
        self._frames = frames
        self._mmu = mmu
        self._sharing = sharing
        self._each = costs.zero_page

    @property
    def frames(self) -> list[int]:
        """All frames that they have."""
        large = range(self.large, self.large + (1 << self.order)) if self.large != NO_FRAME else ()
        return [self.small, *large] if self.small != NO_FRAME else []

    def holds(self, frame: int) -> bool:
        """Whether a frame is part of one."""
        large = self.large != NO_FRAME and self.large <= frame < self.large + (1 << self.order)
        return large or (frame == self.small and frame != NO_FRAME)

    def ready(self, order: int) -> bool:
        """Whether a page of an order is mapped without a block being free."""
        return self.used and order == self.order and self.large != NO_FRAME

    def serves(self, order: int) -> bool:
        """Whether a read that could be given a page of an order maps a page of zeros."""
        return self.used and order <= _LARGEST

    def boot(self, vcpu: Vcpu) -> Steps[None]:
        """Make the small one, which is part of the kernel's image (arch/x86/kernel/head_64.S, empty_zero_page)."""
        if self.used:
            self.small = yield from self._make(vcpu, 0)
            self._sharing.counts()

    def take(self, vcpu: Vcpu, order: int) -> Steps[tuple[int, int]]:
        """Return the frame and the order of the page of zeros to be mapped: the huge one if it can be had.

        The first to need that pays for it (mm/huge_memory.c, get_huge_zero_folio).
        """
        if order and self.large == NO_FRAME:
            frame = yield from self._make(vcpu, order)
            if self.large == NO_FRAME:  # no other CPU was faster
                self.large, self.order = frame, order
                if frame != NO_FRAME:
                    vcpu.owe("guest_fault", self._each << order)
            elif frame != NO_FRAME:
                self._frames.give(np.array([frame]), order)
        if order and order == self.order and self.large != NO_FRAME:
            return self.large, order
        return self.small, 0

    def _make(self, vcpu: Vcpu, order: int) -> Steps[int]:
        frame = yield from self._frames.allocate(vcpu, order)
        if frame != NO_FRAME and self._mmu.traps:
            yield from self._mmu.clear(vcpu, frame << PAGE_SHIFT, order, table=False)
        return frame
