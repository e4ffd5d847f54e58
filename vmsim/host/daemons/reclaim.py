"""A reclaimer that takes pages of living VMs at a steady rate, and lets them come back when they are next used.

It looks at nothing: each page is as likely as any other. That makes it a yardstick for what taking a page costs, and a
test that any page can be taken at any time; it is no model of kswapd, which chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from vmsim.base.clock import Clock
from vmsim.contracts import Flush, Steps
from vmsim.host.guest_memory import GuestMemory
from vmsim.machine.formats import PRESENT

__all__ = ["reclaim"]

_TRIES = 64  # before all frames are gone through


class Vm(Protocol):
    """A VM, as far as the reclaimer knows it."""

    slot: GuestMemory | None

    def forget(self, flush: Flush) -> None:
        """Have its processors forget what a flush says."""

    @property
    def able(self) -> bool:
        """Whether its pages may be taken: it has booted, and not ended."""
        ...


def reclaim(env: Clock, vms: Sequence[Vm], *, period: int, batch: int, seed: int) -> Steps[None]:
    """Take `batch` pages every `period` cycles, each of a VM and at a place that are drawn.

    It ends where nothing else is due any more: the last VM has ended, or nobody can go on.

    Parameters
    ----------
    env : Clock
        Simulated time.
    vms : sequence of Vm
        Whose pages; those that a device works on are left alone.
    period, batch : int
        Cycles between two rounds, and pages taken in each.
    seed : int
        Of what is drawn.
    """
    random = Random(seed)
    while True:
        yield env.timeout(period)
        taken = 0
        for _ in range(batch):
            able = [(vm, vm.slot) for vm in vms if vm.slot and vm.able]
            if not able:
                break
            vm, slot = random.choice(able)
            before = slot.taken
            if (gfn := _draw(slot, random)) is not None:
                vm.forget(slot.take(gfn, 1))
            taken += slot.taken - before
        if not taken and env.peek() == float("inf"):
            return


def _draw(slot: GuestMemory, random: Random) -> int | None:
    """Return a guest frame that has a host frame, each as likely as any other; None if there is none."""
    pages = len(slot.backing)
    for _ in range(_TRIES):
        gfn = random.randrange(pages)
        if slot.backing[gfn] & PRESENT:
            return gfn
    gfns = slot.present()
    return int(gfns[random.randrange(len(gfns))]) if len(gfns) else None
