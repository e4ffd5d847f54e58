"""Daemons of the host, and how they choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vmsim.base.clock import Clock
from vmsim.contracts.monitor import LiveVm
from vmsim.contracts.steps import Steps

__all__ = ["Daemon", "DaemonHost", "Victims"]


class DaemonHost(Protocol):
    """The host, as its daemons know it.

    Attributes
    ----------
    env : Clock
        Simulated time.
    host : HostMemory
        Who has which frame.
    """

    env: Clock
    host: Any

    @property
    def vms(self) -> Sequence[LiveVm]:
        """All VMs, those that have not begun or have ended among them."""
        ...


class Daemon(Protocol):
    """A process of the host's that works on the memory of its VMs (kswapd, ksmd, khugepaged are Linux's)."""

    def run(self, host: DaemonHost) -> Steps[None]:
        """Work from now on; wait for the next turn by `Clock.background`."""
        ...


class Victims(Protocol):
    """Which pages are taken from VMs."""

    def choose(self, vms: Sequence[LiveVm]) -> tuple[LiveVm, int] | None:
        """Return one of the VMs (there is one at least), and the number of one of its pages; None: no page."""
        ...
