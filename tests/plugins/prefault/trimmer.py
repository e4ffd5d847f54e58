"""Daemon trim, which takes pages of VMs that have more than they should, and the policy that says which."""

from collections.abc import Sequence

from vmsim.contracts import DaemonHost, LiveVm, Steps, Victims
from vmsim.host.daemons.parts import DaemonParts


class Trimmer:
    """Cuts each VM down to so many pages now and then."""

    def __init__(self, pages: int, every: int, victims: Victims) -> None:
        self.pages = pages
        self.every = every
        self.victims = victims

    def run(self, host: DaemonHost) -> Steps[None]:
        """Work from now on."""
        while True:
            yield host.env.background(self.every, frees=True)
            for vm in host.vms:
                while vm.able and len(vm.pages.present()) > self.pages and (victim := self.victims.choose([vm])):
                    vm.forget(vm.pages.take(victim[1], 1))


class HighestFrame:
    """The guest's highest frame, but for a few."""

    def __init__(self, skip: int) -> None:
        self.skip = skip

    def choose(self, vms: Sequence[LiveVm]) -> tuple[LiveVm, int] | None:
        """Return it."""
        gfns = vms[0].pages.present()
        return (vms[0], int(gfns[-1 - self.skip])) if len(gfns) > self.skip else None


def build(parts: DaemonParts) -> Trimmer:
    """Return the daemon."""
    return Trimmer(parts.table.pages, parts.table.every, parts.policy("highest"))


def highest(parts: DaemonParts) -> HighestFrame:
    """Return the policy."""
    return HighestFrame(parts.table.skip)
