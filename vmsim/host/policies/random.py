"""Any page of any VM, each VM as likely as any other, and each of its pages likewise."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from vmsim.contracts import LiveVm
from vmsim.host.daemons.parts import DaemonParts
from vmsim.machine.formats import PRESENT

__all__ = ["AnyPage", "build"]

_TRIES = 64  # before all frames are gone through


class AnyPage:
    """Looks at nothing.

    Parameters
    ----------
    seed : int
        Of what is drawn.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def choose(self, vms: Sequence[LiveVm]) -> tuple[LiveVm, int] | None:
        """Return a VM and a guest frame of it that has a host frame; None if the VM that was drawn has none."""
        vm = self.random.choice(vms)
        backing = vm.slot.backing
        for _ in range(_TRIES):
            gfn = self.random.randrange(len(backing))
            if backing[gfn] & PRESENT:
                return vm, gfn
        gfns = vm.slot.present()
        return (vm, int(gfns[self.random.randrange(len(gfns))])) if len(gfns) else None


def build(parts: DaemonParts) -> AnyPage:
    """Return the policy."""
    return AnyPage(parts.seed)
