"""The daemon: has a policy look at the host again and again, on a core of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vmsim.contracts import DaemonHost, MemoryGovernor, Steps
from vmsim.host.daemons.overcommit.shared import Sharer, SharingHost
from vmsim.host.daemons.parts import DaemonParts

__all__ = ["Overcommitter", "build"]


class Overcommitter:
    """Has a policy say how much memory each VM has.

    Programs on the host itself have no balloon, and no memory that is apart from the host's: they are left alone.

    Parameters
    ----------
    every : int
        Cycles between two looks.
    policy : MemoryGovernor
        Says it.
    patience : int
        Cycles for which a balloon may lack pages and not grow before other means are used.

    Attributes
    ----------
    vms : list of Sharer
        The VMs with memory of their own; from `register` on.
    """

    def __init__(self, every: int, policy: MemoryGovernor, patience: int) -> None:
        self.every = every
        self.patience = patience
        self.policy = policy
        self.vms: list[Sharer] = []

    def register(self, vms: Sequence[Any]) -> None:
        """Have each VM count what the policy did to it."""
        self.vms = [Sharer(vm, self.patience) for vm in vms if vm.pages and not vm.spec.bare]
        figures = getattr(self.policy, "figures", None)
        for each in self.vms:
            if figures:
                each.vm.ledger.counters("overcommit_policy", figures)

    def run(self, host: DaemonHost) -> Steps[None]:
        """Look at the host from now on.

        As long as a VM is kept from running, the look at which it may go on is something that must come.
        """
        shared, spent = SharingHost(host), 0
        while True:
            delay = max(1, self.every - spent)
            kept = any(each.blocked for each in self.vms)
            yield host.env.after(delay) if kept else host.env.background(delay, frees=True)
            for each in self.vms:
                each.look()
            spent = self.policy.turn(shared, self.vms)
            if spent:
                yield host.env.background(spent, frees=True, work=spent)


def build(parts: DaemonParts) -> Overcommitter:
    """Return the daemon that a scenario asks for."""
    every = max(1, parts.table.every.cycles(parts.frequency))
    patience = parts.table.patience.cycles(parts.frequency)
    return Overcommitter(every, parts.policy(parts.table.policy), patience)
