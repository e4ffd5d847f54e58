"""First come, first served: at the end of its slice a vCPU goes to the end of the queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

__all__ = ["RoundRobin"]


class RoundRobin:
    """A queue, and nothing else."""

    preempts = False

    def __init__(self) -> None:
        self._queue: deque[int] = deque()

    def add(self, vcpu: int, now: int, *, woken: bool) -> None:
        """Put a vCPU at the end."""
        self._queue.append(vcpu)

    def take(self, now: int) -> int | None:
        """Return the vCPU that waits longest."""
        return self._queue.popleft() if self._queue else None

    def charge(self, vcpu: int, cycles: int, now: int) -> None:
        """Forget it: all slices are alike."""

    def stop(self, vcpu: int) -> None:
        """Forget it."""

    def passes_on(self, vcpu: int, now: int) -> bool:
        """Return whether anybody waits."""
        return bool(self._queue)

    def victim(self, running: Mapping[int, int], now: int) -> int | None:
        """Return None: nobody is interrupted within a slice."""
        return None

    def next_change(self, now: int) -> int | None:
        """Return None: whoever waits may run."""
        return None
