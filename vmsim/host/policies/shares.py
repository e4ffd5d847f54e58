"""Pages by the shares of the VMs (`vm.shares`): pools keep levels in proportion to them, and so are frames given out.

C. Waldspurger, Memory Resource Management in VMware ESX Server (OSDI 2002), §5.1: resources are given in proportion to
shares, and taken from who has most for its shares.
"""

from __future__ import annotations

from vmsim.contracts import Reserve
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.policies.fair import ByWeight

__all__ = ["ByShares", "build"]


class ByShares(ByWeight):
    """Each VM by its shares."""

    usual = 1000

    def weight(self, reserve: Reserve) -> int:
        """Return the shares of a VM."""
        return reserve.shares


def build(parts: DaemonParts) -> ByShares:
    """Return the policy."""
    return ByShares()
