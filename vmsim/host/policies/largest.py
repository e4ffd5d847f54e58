"""The pool with most to spare gives all of that, then the next; who asked for frames first gets them first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vmsim.contracts import FrameRequest, Reserve, SparesHost
from vmsim.host.daemons.parts import DaemonParts

__all__ = ["Largest", "build"]


class Largest:
    """First come, first served."""

    def levels(self, host: SparesHost, reserves: Sequence[Reserve]) -> Iterator[tuple[Reserve, int]]:
        """Yield who gives, in turn, and what each keeps: what it must have."""
        for each in sorted(reserves, key=lambda each: (each.least - each.level, each.owner)):
            yield each, each.kept

    def first(self, waiting: Sequence[FrameRequest], reserves: Sequence[Reserve]) -> int:
        """Return whose turn it is: who asked first."""
        return 0

    def served(self, request: FrameRequest, frames: int) -> None:
        """Note nothing."""


def build(parts: DaemonParts) -> Largest:
    """Return the policy."""
    return Largest()
