"""pCPUs shared in time slices: first come, first served, back to the core last run on where it is free."""

from __future__ import annotations

from collections import deque

import simpy

from vmsim.base.clock import Clock

__all__ = ["Scheduler"]


class Scheduler:
    """Who runs where. A vCPU asks for a core, keeps it for a slice, and goes to the end of the queue."""

    def __init__(self, env: Clock, cores: int) -> None:
        self.env = env
        self.last: list[int] = [-1] * cores  # the vCPU that each core ran last
        self._idle = list(range(cores))
        self._queue: deque[tuple[int, simpy.Event]] = deque()

    @property
    def contended(self) -> bool:
        """Whether a vCPU waits for a core."""
        return bool(self._queue)

    def request(self, vcpu: int) -> simpy.Event | int:
        """Return a core that is idle, or an event that gives one."""
        if not self._idle:
            event = self.env.event()
            self._queue.append((vcpu, event))
            return event
        core = next((core for core in self._idle if self.last[core] == vcpu), self._idle[0])
        self._idle.remove(core)
        return core

    def release(self, core: int, vcpu: int) -> None:
        """Give a core back; the longest waiting vCPU gets it."""
        self.last[core] = vcpu
        if self._queue:
            _, event = self._queue.popleft()
            event.succeed(core)
        else:
            self._idle.append(core)
            self._idle.sort()
