"""The pool with most to spare gives, and who lacks most gets frames first, whoever asked first."""

from __future__ import annotations

from collections.abc import Sequence

from vmsim.contracts import FrameRequest, Reserve
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.policies.largest import Largest

__all__ = ["Neediest", "build"]


class Neediest(Largest):
    """By what suspended vCPUs wait for, and what a pool is under its minimum."""

    def first(self, waiting: Sequence[FrameRequest], reserves: Sequence[Reserve]) -> int:
        """Return whose turn it is: of who lacks most pages, who asked first."""
        lacks = {each.owner: each.wanted + max(0, each.least - each.level) for each in reserves}
        return min(range(len(waiting)), key=lambda at: -lacks.get(waiting[at].asker, waiting[at].frames))


def build(parts: DaemonParts) -> Neediest:
    """Return the policy."""
    return Neediest()
