"""The clock: a hand goes round all pages, and the first that was not accessed since it last passed is chosen.

F. J. Corbató, "A Paging Experiment with the Multics System" (MIT Project MAC Report MAC-M-384, 1968). Whether a page
was accessed the VM's paging mode says, and forgets (`SecondMmu.age`), in every mode.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmsim.contracts import Flush, LiveVm
from vmsim.host.daemons.parts import DaemonParts

__all__ = ["Clock", "build"]


class Clock:
    """A hand that goes round the VMs' pages, a VM after the other."""

    def __init__(self) -> None:
        self._vm: LiveVm | None = None
        self._gfn = 0

    def choose(self, vms: Sequence[LiveVm]) -> tuple[LiveVm, int] | None:
        """Return the next page that was not accessed; None if twice round all were, or there is none."""
        at = next((number for number, vm in enumerate(vms) if vm is self._vm), 0)
        if vms[at] is not self._vm:
            self._gfn = 0
        for _ in range(2 * len(vms) + 1):
            vm = vms[at]
            found = self._pass(vm)
            if found is not None:
                self._vm, self._gfn = vm, found + 1
                return vm, found
            at, self._gfn = (at + 1) % len(vms), 0
        self._vm = None
        return None

    def _pass(self, vm: LiveVm) -> int | None:
        """Go through the rest of a VM's pages, and return the first that was not accessed."""
        pages, cleared = vm.pages, False
        found, present = None, vm.pages.present()
        for number in present[present >= self._gfn].tolist():
            if pages.holds(number) and not pages.pinned(number):
                if not pages.second.age(number, 1, clear=True)[0]:
                    found = number
                    break
                cleared = True
        if cleared:
            vm.forget(Flush(nested=True, linear=True))
        return found


def build(parts: DaemonParts) -> Clock:
    """Return the policy."""
    return Clock()
