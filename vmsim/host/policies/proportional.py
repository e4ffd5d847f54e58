"""A refill brings a part of what a pool lacks of its maximum: much where it is nearly empty, little where it is not.

A proportional controller towards the upper watermark. Its refills grow shorter as the pool fills, so that pages come
soon after a call, where one of all that is missing would keep who waits until its last page is cleared.
"""

from __future__ import annotations

from vmsim.contracts import Reserve
from vmsim.host.daemons.parts import DaemonParts

__all__ = ["Proportional", "build"]


class Proportional:
    """A part of the room."""

    def __init__(self, percent: int) -> None:
        self.percent = percent

    def low(self, pool: Reserve) -> int:
        """Return the level under which the host is called: the minimum."""
        return pool.spec.min

    def count(self, pool: Reserve) -> int:
        """Return the pages of the next refill, rounded up."""
        return max(1, -(-self.percent * pool.room // 100))


def build(parts: DaemonParts) -> Proportional:
    """Return the policy."""
    return Proportional(parts.table.percent)
