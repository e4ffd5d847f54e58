"""What the guest's kernel writes to without a walk, such as a page that it clears: each frame that lacks a page exits.

It is one protocol for all modes. The commit of it is `touch_frames`, which the run loop calls too (`touch_frame`); what
has to wait, for the pool, the host or the swap device, waits in `touch_one`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from vmsim.contracts import Steps, Vcpu
from vmsim.contracts.commit import collected, words_of
from vmsim.jit import of_one_type
from vmsim.monitor.backing.commit import NestedMode, touch_frames
from vmsim.monitor.base import BaseMonitor
from vmsim.tables.backing import next_lacking

__all__ = ["Touching"]


class Touching(BaseMonitor):
    """A monitor whose guest memory is backed page by page.

    Attributes
    ----------
    bills : BILL[vCPUs]
        What the exit under way of each vCPU has cost that the monitor's process handles.
    exited : callable
        Has a vCPU's processor forget what a VM exit makes it forget.
    """

    bills: NDArray[Any]
    exited: Callable[[Vcpu], None]
    _touch: Callable[..., Any] | None = None

    @abstractmethod
    def memory_pages(self, vcpu: Vcpu) -> NestedMode | None:
        """Return the pages of guest memory as compiled code takes them; None: it takes none."""

    @abstractmethod
    def touch_one(self, vcpu: Vcpu, gfn: int) -> Steps[None]:
        """Handle the exit at one frame, for which somebody may have to be waited for."""

    def lacking(self, gfn: int, limit: int) -> int:
        """Return the first of the guest frames [gfn, limit) that a write finds nowhere, or `limit`."""
        return int(next_lacking(self.backing, gfn, limit))

    def touch(self, vcpu: Vcpu, gfn: int, order: int) -> Steps[None]:
        """Write to 2**order guest frames: each that has no host frame exits once and gets one."""
        limit = gfn + (1 << order)
        while (gfn := self.lacking(gfn, limit)) < limit:
            first, mode = gfn, self.memory_pages(vcpu)
            if mode is not None:
                self._touch = self._touch or of_one_type(touch_frames)
                with vcpu.first():
                    gfn = int(self.commit(vcpu, self._touch, mode, max(vcpu.left, 1), gfn, limit))
            if gfn == first:
                yield from self.touch_one(vcpu, gfn)
                gfn += 1
            if gfn < limit and vcpu.left <= 0:
                yield vcpu.settle()

    def commit(self, vcpu: Vcpu, kernel: Any, mode: Any, *arguments: Any) -> Any:
        """Call a commit kernel for the exit of a vCPU that is handled: pay what that took, and count what has ended.

        The kernel is one that the run loop calls as well, or a door to it. It is given the `mode`, the vCPU's bill, and
        the arguments; what is returned is what it says.
        """
        bill = self.bills[vcpu.number : vcpu.number + 1]
        bill["begun"], bill["now"] = vcpu.now, 0
        done = kernel(mode, bill, *arguments)
        self.brought()
        if cycles := int(bill["now"][0]):
            vcpu.owe("exit", cycles)
        if bill["pending"][0] or bill["flush"][0]:
            self.exited(vcpu)
            self.count(vcpu, collected(words_of(bill)))
        return done
