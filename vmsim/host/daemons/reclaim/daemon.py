"""A reclaimer that takes pages of living VMs at a steady rate, and lets them come back when they are next used.

Which pages a policy says (vmsim/host/policies/). It is a yardstick for what taking a page costs, and a test that any
page can be taken at any time; it is no model of kswapd, which looks at how much is free.

It takes none from a VM as long as a vCPU of it waits for a page that a disk reads: at a high rate the next page that an
access needs would be gone before the last has come, and no access would ever be made.
"""

from __future__ import annotations

from typing import Any

from vmsim.contracts import NO_FLUSH, DaemonHost, Flush, LiveVm, Steps, Victims
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.daemons.reclaim.table import Reclaim

__all__ = ["Reclaimer", "build"]


class Reclaimer:
    """Takes pages, a batch each period.

    Parameters
    ----------
    period, batch : int
        Cycles between two rounds, and pages taken in each; those that a device works on are left alone.
    victims : Victims
        Says which.
    each : int
        Cycles that the daemon, which is one thread, needs for a page: it takes no more than it can.
    """

    def __init__(self, period: int, batch: int, victims: Victims, *, each: int) -> None:
        self.period = period
        self.batch = batch
        self.victims = victims
        self.each = each

    def run(self, host: DaemonHost) -> Steps[None]:
        """Take pages from now on.

        The flushes of a round are made together, VM by VM, before anybody else can have the pages; the daemon waits
        until the vCPUs that run have left the guest for them.
        """
        spent = 0
        while True:
            yield host.env.background(max(1, self.period - spent), frees=True)
            flushes: dict[LiveVm, Flush] = {}
            taken = 0
            for _ in range(self.batch):
                able = [vm for vm in host.vms if vm.pages and vm.able and not _awaits(vm.pages)]
                if not able:
                    break
                if victim := self.victims.choose(able):
                    vm, number = victim
                    flushes[vm] = flushes.get(vm, NO_FLUSH) + vm.pages.take(number, 1)
                    taken += 1
                elif not any(len(vm.pages.present()) for vm in able if vm.pages):
                    break
            spent = taken * self.each + sum(vm.forget(flush) for vm, flush in flushes.items())
            if spent:
                yield host.env.background(spent, frees=True, work=spent)


def _awaits(memory: Any) -> bool:
    """Return whether a vCPU waits for one of these pages to be read from the swap device."""
    swapped = memory.swapped
    return swapped is not None and swapped.swap.awaited[memory.owner] > 0


def build(parts: DaemonParts) -> Reclaimer:
    """Return the reclaimer that a scenario asks for."""
    table: Reclaim = parts.table
    each = parts.costs.host_zap
    period = max(1, each, parts.frequency * table.batch // table.rate)
    return Reclaimer(period, table.batch, parts.policy(table.policy), each=each)
