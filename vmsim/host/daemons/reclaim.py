"""A reclaimer that takes pages of living VMs at a steady rate, and lets them come back when they are next used.

It looks at nothing: each page is as likely as any other. That makes it a yardstick for what taking a page costs, and a
test that any page can be taken at any time; it is no model of kswapd, which chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from vmsim.base.clock import Clock
from vmsim.contracts import LiveVm, Steps
from vmsim.host.guest_memory import GuestMemory
from vmsim.machine.formats import PRESENT

__all__ = ["reclaim"]

_TRIES = 64  # before all frames are gone through


def reclaim(env: Clock, vms: Sequence[LiveVm], *, period: int, batch: int, seed: int) -> Steps[None]:
    """Take `batch` pages every `period` cycles, each of a VM and at a place that are drawn.

    Parameters
    ----------
    env : Clock
        Simulated time.
    vms : sequence of LiveVm
        Whose pages; those that a device works on are left alone.
    period, batch : int
        Cycles between two rounds, and pages taken in each.
    seed : int
        Of what is drawn.
    """
    random = Random(seed)
    while True:
        yield env.background(period, frees=True)
        for _ in range(batch):
            able = [(vm, vm.slot) for vm in vms if vm.slot and vm.able]
            if not able:
                break
            vm, slot = random.choice(able)
            if (gfn := _draw(slot, random)) is not None:
                vm.forget(slot.take(gfn, 1))


def _draw(slot: GuestMemory, random: Random) -> int | None:
    """Return a guest frame that has a host frame, each as likely as any other; None if there is none."""
    pages = len(slot.backing)
    for _ in range(_TRIES):
        gfn = random.randrange(pages)
        if slot.backing[gfn] & PRESENT:
            return gfn
    gfns = slot.present()
    return int(gfns[random.randrange(len(gfns))]) if len(gfns) else None
