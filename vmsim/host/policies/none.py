"""Nobody is asked for anything."""

from __future__ import annotations

from collections.abc import Sequence

from vmsim.contracts import SharedHost, SharingVm
from vmsim.host.daemons.parts import DaemonParts

__all__ = ["Nothing", "build"]


class Nothing:
    """Does nothing."""

    def turn(self, host: SharedHost, vms: Sequence[SharingVm]) -> int:
        """Do nothing."""
        return 0


def build(parts: DaemonParts) -> Nothing:
    """Return the policy."""
    return Nothing()
