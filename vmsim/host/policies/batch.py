"""A refill of `pool.batch` pages whenever a pool is under its minimum: the plex86 monitor's."""

from __future__ import annotations

from vmsim.contracts import Reserve
from vmsim.host.daemons.parts import DaemonParts

__all__ = ["Batches", "build"]


class Batches:
    """Always as many."""

    def low(self, pool: Reserve) -> int:
        """Return the level under which the host is called."""
        return pool.spec.min

    def count(self, pool: Reserve) -> int:
        """Return the pages of the next refill."""
        return pool.spec.batch


def build(parts: DaemonParts) -> Batches:
    """Return the policy."""
    return Batches()
