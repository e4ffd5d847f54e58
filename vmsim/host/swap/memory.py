"""What the memory of a VM does with a swap device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Vcpu
from vmsim.frames.buddy import MAX_ORDER
from vmsim.host.swap.pages import SwappedPages
from vmsim.host.swap.swap import Swap
from vmsim.machine.formats import FRAME
from vmsim.tables.backing import SMALL_PAGE, SWAPPED, page_of

__all__ = ["SwappableMemory"]

Words = NDArray[np.int64]


class SwappableMemory:
    """The part of a `GuestMemory` that knows of swap, whose attributes these are."""

    backing: Words
    swapped: SwappedPages | None

    def swap_to(self, swap: Swap) -> None:
        """Have pages that are taken go to a swap device from now on."""
        self.swapped = SwappedPages(swap, self)

    def away(self, gfn: int) -> bool:
        """Whether a page is on the swap device, so that it has to be brought back before its frame is backed."""
        return self.swapped is not None and gfn in self.swapped.away

    def bring(self, vcpu: Vcpu, gfn: int, *, write: bool) -> Steps[int]:
        """Bring a page back from the swap device, to be written to or not; return the cycles of the host's work.

        The vCPU waits until it is there, in a frame of the VM's that nothing maps yet.

        Raises
        ------
        VmStopped
            It cannot be read.
        """
        assert self.swapped
        return (yield from self.swapped.bring(vcpu, gfn, write=write))

    @property
    def away_count(self) -> int:
        """Pages on the swap device."""
        return len(self.swapped.away) if self.swapped else 0

    def whole(self, numbers: Words) -> Words:
        """Return all guest frames of the pages that some frames are the first of, int64[n] ascending."""
        if (self.backing[numbers] & ~FRAME == SMALL_PAGE).all():
            return np.sort(numbers)
        orders = [page_of(self.backing, gfn, MAX_ORDER) for gfn in numbers.tolist()]
        return np.unique(
            [
                gfn + at
                for gfn, page in zip(numbers.tolist(), orders, strict=True)
                for at in range(1 << page[1] if page else 1)
            ]
        )

    def _leave_swap(self, first: int, count: int, to: int) -> None:
        """Forget what the swap device has of frames that lose their contents."""
        assert self.swapped
        for gfn in (first + np.flatnonzero(self.backing[first : first + count])).tolist():
            self.swapped.forget(gfn)
            if self.backing[gfn] & SWAPPED:
                self.backing[gfn] = to
