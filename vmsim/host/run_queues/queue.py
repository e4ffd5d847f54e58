"""What a scheduler asks of a run queue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["RunQueue"]


class RunQueue(Protocol):
    """Which vCPU, by its number on the host, has the next core. Times are in cycles."""

    @property
    def preempts(self) -> bool:
        """Whether a vCPU may be interrupted within its slice."""
        ...

    def add(self, vcpu: int, now: int, *, woken: bool) -> None:
        """Have a vCPU wait for a core: it slept until now (`woken`), or its slice has ended."""
        ...

    def take(self, now: int) -> int | None:
        """Return the vCPU that is to have a core, which waits no longer; None: none may run."""
        ...

    def charge(self, vcpu: int, cycles: int, now: int) -> None:
        """Count what a vCPU ran since it had its core or was charged last."""
        ...

    def stop(self, vcpu: int) -> None:
        """Note that a vCPU has given its core back."""
        ...

    def passes_on(self, vcpu: int, now: int) -> bool:
        """Return whether a vCPU whose slice has ended is to give its core up."""
        ...

    def victim(self, running: Mapping[int, int], now: int) -> int | None:
        """Return the vCPU that one that waits is to interrupt.

        `running` has the vCPUs with a core, and the cycles for which each is not charged yet.
        """
        ...

    def next_change(self, now: int) -> int | None:
        """Return when one that waits and may not run may; None: nobody is held back."""
        ...
