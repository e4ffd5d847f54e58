"""All VMs have the same part of their memory: what the host has for them over what they have been promised.

It knows nothing of what is in use; a yardstick for policies that do.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmsim.contracts import SharedHost, SharingVm
from vmsim.host.daemons.parts import DaemonParts

__all__ = ["Prorata", "build"]


class Prorata:
    """By size.

    Parameters
    ----------
    free : float
        Percent of the host's memory that is to be free.
    """

    def __init__(self, free: float) -> None:
        self.free = free

    def turn(self, host: SharedHost, vms: Sequence[SharingVm]) -> int:
        """Ask each VM for what it has too much."""
        running = [vm for vm in vms if vm.running]
        promised = sum(vm.size for vm in running)
        there = sum(vm.resident for vm in running) + host.free - int(host.size * self.free / 100)
        for vm in running:
            vm.ask(vm.size - min(vm.size, max(0, vm.size * there // promised)))
        return 0


def build(parts: DaemonParts) -> Prorata:
    """Return the policy."""
    return Prorata(parts.table.free)
