"""pCPUs shared in time slices: who waits is in a run queue, and goes back to the core last run on where it is free."""

from __future__ import annotations

from bisect import insort

import simpy

from vmsim.base.clock import Clock
from vmsim.host.run_queues.queue import RunQueue
from vmsim.host.run_queues.round_robin import RoundRobin

__all__ = ["Scheduler"]


class Scheduler:
    """Who runs where. A vCPU asks for a core, keeps it for a slice, and waits in the queue again.

    Parameters
    ----------
    env : Clock
    cores : int
    queue : RunQueue, optional
        First come, first served, without.
    first : int, optional
        The first of the cores, which follow each other.

    Attributes
    ----------
    last : list of int
        The vCPU that each core ran last; -1: none.
    slice_end : list of int
        When the slice of each core's vCPU ends, in cycles.
    """

    def __init__(self, env: Clock, cores: int, queue: RunQueue | None = None, *, first: int = 0) -> None:
        self.env = env
        self.queue: RunQueue = queue or RoundRobin()
        self.last = [-1] * (first + cores)
        self.slice_end = [0] * (first + cores)
        self._idle = list(range(first, first + cores))
        self._waiting: dict[int, simpy.Event] = {}
        self._running: dict[int, tuple[int, int]] = {}  # core of each vCPU that has one, and since when it is charged
        self._alarm = False

    def request(self, vcpu: int, *, woken: bool = True) -> simpy.Event | int:
        """Return a core that is idle, or an event that gives one."""
        now = self.env.cycle
        self.queue.add(vcpu, now, woken=woken)
        core = self._dispatch(vcpu)
        if core is not None:
            return core
        if self.queue.preempts:
            self._interrupt(now)
        event = self._waiting[vcpu] = self.env.event()
        return event

    def release(self, core: int, vcpu: int) -> None:
        """Give a core back; who is next in the queue gets it."""
        self.last[core] = vcpu
        self._charge(vcpu)
        del self._running[vcpu]
        self.queue.stop(vcpu)
        insort(self._idle, core)
        self._dispatch()

    def passes_on(self, vcpu: int) -> bool:
        """Return whether a vCPU whose slice has ended is to give its core to another."""
        self._charge(vcpu)
        return self.queue.passes_on(vcpu, self.env.cycle)

    def _charge(self, vcpu: int) -> None:
        core, since = self._running[vcpu]
        now = self.env.cycle
        self.queue.charge(vcpu, now - since, now)
        self._running[vcpu] = core, now

    def _dispatch(self, asks: int = -1) -> int | None:
        """Give idle cores to those who are next; return the core of who asks."""
        now, own = self.env.cycle, None
        while self._idle and (vcpu := self.queue.take(now)) is not None:
            core = self._core_for(vcpu)
            self._idle.remove(core)
            self._running[vcpu] = core, now
            if vcpu == asks:
                own = core
            else:
                self._waiting.pop(vcpu).succeed(core)
        if self._idle and not self._alarm and (when := self.queue.next_change(now)) is not None:
            self._alarm = True
            self.env.after(when - now).callbacks.append(self._ring)
        return own

    def _core_for(self, vcpu: int) -> int:
        """Return the first idle core that the vCPU has left, or the first."""
        if vcpu not in self.last:
            return self._idle[0]
        left = self.last.index(vcpu)  # nearly always the only one
        if left in self._idle:
            return left
        return next((core for core in self._idle if self.last[core] == vcpu), self._idle[0])

    def _ring(self, _: simpy.Event) -> None:
        self._alarm = False
        self._dispatch()

    def _interrupt(self, now: int) -> None:
        """End the slice of a vCPU that is to make room."""
        victim = self.queue.victim({vcpu: now - since for vcpu, (_, since) in self._running.items()}, now)
        if victim is not None:
            core, _ = self._running[victim]
            self.slice_end[core] = min(self.slice_end[core], now)
