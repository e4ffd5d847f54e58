"""Limits of a VM's memory, as of a memory cgroup (Linux mm/memcontrol.c, Documentation/admin-guide/cgroup-v2.rst).

What a VM has is charged to it: its pages, the tables that map them and the free pages of its monitor, not what is
swapped out nor frames that it shares with others. At `memory.max` whoever asks for more has pages of the VM taken
first; when that has failed sixteen times the VM is ended, whose memory is all that can be given up. Above `memory.high`
whoever asks has as many taken as it asks for, and where that does not help it is put to sleep, for longer the further
the VM is above it (mem_cgroup_handle_over_high).

The kernel charges first and takes pages on the way back to the program; here they are taken before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from vmsim.base.clock import Clock
from vmsim.contracts import Steps
from vmsim.host.memory import HostMemory

__all__ = ["BATCH", "LIMIT_WAIT", "MemoryLimit", "high_delay"]

LIMIT_WAIT: Final = "limit_wait"  # the cause of the time that a vCPU waits for it (record/causes.py)
BATCH: Final = 64  # pages that are charged at a time (MEMCG_CHARGE_BATCH)
_CLUSTER: Final = 32  # pages that are taken at least (SWAP_CLUSTER_MAX)
_RETRIES: Final = 16  # MAX_RECLAIM_RETRIES
_PRECISION: Final = 20  # bits of an overage (MEMCG_DELAY_PRECISION_SHIFT)
_SCALING: Final = 14  # MEMCG_DELAY_SCALING_SHIFT
_HZ: Final = 1000  # jiffies in a second
_LONGEST: Final = 2 * _HZ  # MEMCG_MAX_HIGH_DELAY_JIFFIES
_SHORTEST: Final = _HZ // 100  # up to which nobody sleeps


def high_delay(usage: int, high: int, pages: int) -> int:
    """Return for how many milliseconds a task sleeps that has charged so many pages (calculate_high_delay).

    Parameters
    ----------
    usage, high : int
        Pages that are charged, and `memory.high`.
    pages : int
        Of the task's own.
    """
    if usage <= high:
        return 0
    overage = ((usage - high) << _PRECISION) // max(high, 1)
    jiffies = (overage * overage * _HZ >> _PRECISION) >> _SCALING
    return min(jiffies * pages // BATCH, _LONGEST)


class MemoryLimit:
    """What a VM may have.

    Parameters
    ----------
    env : Clock
        Simulated time.
    host : HostMemory
        Who has which frame.
    owner : int
        The VM.
    high, most : int
        Pages; 0: no such limit.
    frequency : int
        Cycles in a second.

    Attributes
    ----------
    counts : Counter
        As of `memory.events`: how often there was to be more than `high` and `max`, and that ended the VM (`oom_kill`);
        pages `reclaimed` for it; cycles `throttled`, asleep for being above `high`.
    end : callable
        Ends the VM.
    """

    def __init__(self, env: Clock, host: HostMemory, *, owner: int, high: int, most: int, frequency: int) -> None:
        self.env = env
        self.host = host
        self.owner = owner
        self.high = high
        self.most = most
        self._jiffy = max(1, frequency // _HZ)
        self.counts: Counter[str] = Counter(dict.fromkeys(("high", "max", "oom_kill", "reclaimed", "throttled"), 0))
        self.end: Callable[[], None] = lambda: None
        self._ends = False

    @property
    def usage(self) -> int:
        """Pages that are charged now."""
        return sum(self.host.count(self.owner).values())

    def allows(self, pages: int) -> int:
        """Return how many of so many pages may be charged at once, with nothing to be done for it."""
        if self._ends:
            return pages
        usage = self.usage
        if self.high and usage + pages > self.high:
            return 0
        return max(0, min(pages, self.most - usage)) if self.most else pages

    def admit(self, pages: int) -> Steps[int]:
        """Do what must be done before so many pages are charged; return how many may be, 1 at least."""
        if self.most:
            yield from self._below_most(pages)
        if self.high and not self._ends:
            yield from self._below_high(pages)
        if self._ends or not self.most:
            return pages
        return max(1, min(pages, self.most - self.usage))

    def _below_most(self, pages: int) -> Steps[None]:
        """Have pages taken until one more may be charged, or end the VM (try_charge_memcg)."""
        left, noted = _RETRIES, False
        while not self._ends and self.usage >= self.most:
            self.counts["max"] += not noted
            noted = True
            reclaimed = yield from self._reclaim(max(pages, _CLUSTER))
            if reclaimed < 0:  # it is charged all the same
                return
            if reclaimed:
                continue
            left -= 1
            if left < 0 and self.usage >= self.most:
                self.counts["oom_kill"] += 1
                self._ends = True
                self.host.let_die(self.owner)
                self.end()
            else:
                yield self.env.after(self._jiffy)

    def _below_high(self, pages: int) -> Steps[None]:
        """Have as many pages taken as are to be charged; sleep if that does not help (mem_cgroup_handle_over_high)."""
        if self.usage + pages <= self.high:
            return
        self.counts["high"] += 1
        left, goal = _RETRIES, pages
        while True:
            reclaimed = yield from self._reclaim(goal)
            delay = high_delay(self.usage + pages, self.high, pages)
            if delay <= _SHORTEST or reclaimed < 0:
                return
            left -= not reclaimed
            if left < 0:
                break
            goal = _CLUSTER
        self.counts["throttled"] += delay * self._jiffy
        yield self.env.after(delay * self._jiffy)

    def _reclaim(self, goal: int) -> Steps[int]:
        """Have pages of the VM taken, about `goal`; return how many were, -1: it can give none just now."""
        if self.host.shrinker is None:
            return 0
        stolen, cycles = self.host.shrinker.shrink(self.owner, goal)
        self.counts["reclaimed"] += max(stolen, 0)
        yield self.env.after(max(1, cycles))
        return stolen
