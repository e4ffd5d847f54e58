"""Any page of any VM, each VM as likely as any other, and each of its pages likewise."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from vmsim.contracts import LiveVm
from vmsim.host.daemons.parts import DaemonParts

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
        """Return a VM and a page of it that has a frame; None if the VM that was drawn has none."""
        vm = self.random.choice(vms)
        pages = vm.pages
        for _ in range(_TRIES):
            number = self.random.randrange(pages.numbers)
            if pages.holds(number):
                return vm, number
        numbers = pages.present()
        return (vm, int(numbers[self.random.randrange(len(numbers))])) if len(numbers) else None


def build(parts: DaemonParts) -> AnyPage:
    """Return the policy."""
    return AnyPage(parts.seed)
