"""The clock: a hand goes round all pages, and the first that was not accessed since it last passed is chosen.

F. J. Corbató, "A Paging Experiment with the Multics System" (MIT Project MAC Report MAC-M-384, 1968). Whether a page
was accessed the VM's paging mode says, and forgets (`SecondMmu.age`), in every mode.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmsim.contracts import Flush, LiveVm
from vmsim.host.daemons.parts import DaemonParts
from vmsim.machine.formats import PRESENT

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
        slot, cleared = vm.slot, False
        found = None
        for gfn in slot.present()[slot.present() >= self._gfn].tolist():
            if slot.backing[gfn] & PRESENT and not slot.pinned(gfn):
                if not slot.second.age(gfn, 1, clear=True)[0]:
                    found = gfn
                    break
                cleared = True
        if cleared:
            vm.forget(Flush(nested=True, linear=True))
        return found


def build(parts: DaemonParts) -> Clock:
    """Return the policy."""
    return Clock()
