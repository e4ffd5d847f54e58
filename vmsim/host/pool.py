"""A monitor's page pool and the host's side of it.

The protocol is that of the plex86 monitor: the monitor takes pages from its pool and gives unused ones back; under
the pool's minimum the host must refill it, over its maximum the host may take the spare pages for itself or for
other VMs. A vCPU that finds the pool empty is suspended until the refill comes; the others run on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.clock import Clock
from vmsim.host.memory import HOST, HostMemory
from vmsim.machine.buddy import State, assign
from vmsim.machine.serve import NEVER
from vmsim.machine.stack import Stack
from vmsim.record.messages import Kind, MessageLog
from vmsim.record.outcome import Transfer
from vmsim.scenario.cpu import Cost
from vmsim.scenario.tables import Pool as PoolSpec

__all__ = ["PagePool", "reclaimer"]

Process = Generator[simpy.Event, Any, None]


class PagePool:
    """Free pages of one monitor, kept between a minimum and a maximum by the host."""

    def __init__(
        self,
        env: Clock,
        host: HostMemory,
        spec: PoolSpec,
        costs: Cost,
        *,
        owner: int,
        name: str,
        log: Callable[[Transfer], None],
        messages: MessageLog,
    ) -> None:
        self.env = env
        self.host = host
        self.spec = spec
        self.costs = costs
        self.owner = owner
        self.name = name
        self.log = log
        self.messages = messages
        self.pages = Stack()
        self.below_min = env.event()
        self.closed = False
        self._waiting: deque[tuple[int, simpy.Event]] = deque()
        env.process(self._refill())

    @property
    def level(self) -> int:
        """Free pages in the pool."""
        return len(self.pages)

    @property
    def floor(self) -> int:
        """Free pages that may be left for a page to be taken without anybody being called or waited for."""
        if self._waiting:
            return NEVER
        return 0 if self.below_min.triggered else self.spec.min

    @property
    def wanted(self) -> int:
        """Pages that suspended vCPUs wait for."""
        return sum(count for count, _ in self._waiting)

    def take(self, count: int) -> list[int]:
        """Return `count` pages if the pool has them and nobody waits, else none."""
        left = len(self.pages) - count
        if self._waiting or left < 0:
            return []
        taken = self.pages.take(count)
        if left < self.spec.min:
            self._call_host()
        return taken

    def request(self, count: int) -> simpy.Event:
        """Return an event that gives a list of `count` pages once the pool has them; first come, first served."""
        event = self.env.event()
        self._waiting.append((count, event))
        self._call_host()
        return event

    def put(self, pages: Sequence[int] | NDArray[np.int64]) -> None:
        """Add pages; suspended vCPUs get theirs first."""
        self.pages.put(pages)
        while self._waiting and len(self.pages) >= self._waiting[0][0]:
            count, event = self._waiting.popleft()
            event.succeed(self.pages.take(count))

    def surrender(self, level: int, kind: Kind, *, asked: bool = False) -> Process:
        """Give the host the pages above `level`, of the monitor's own accord or because the host `asked`."""
        spare = len(self.pages) - level
        if spare <= 0:
            return
        taken = self.pages.drop(spare)
        assign(self.host.frames, taken, HOST, int(State.HOST))
        fixed, cycles = self.costs.reclaim_fixed, self.costs.reclaim_fixed + spare * self.costs.reclaim_page
        if asked:
            self._send(Kind.RECLAIM, spare, fixed)
            self._send(kind, spare, cycles - fixed, after=fixed)
        else:
            self._send(kind, spare, cycles)
        yield self.env.timeout(cycles)
        self.host.give(taken)
        self._log(kind, spare)

    def close(self) -> Process:
        """Give everything back: what is over the maximum as spare pages, then the rest. The VM has ended."""
        self.closed = True
        yield from self.surrender(max(self.spec.max, self.wanted), Kind.SPARE)
        yield from self.surrender(0, Kind.RETURN)

    def _refill(self) -> Process:
        """Keep the pool between its watermarks (host side of the page-pool protocol)."""
        while True:
            yield self.below_min
            self._send(Kind.NEED_PAGES, self.wanted + max(0, self.spec.min - len(self.pages)), self.costs.message)
            yield self.env.timeout(self.costs.message)
            while not self.closed and (self._waiting or len(self.pages) < self.spec.min):
                granted = yield self.host.request(HOST, self.spec.batch, State.HOST, asker=self.owner)
                cycles = self._grant_cost(len(granted))
                self._send(Kind.GRANT, len(granted), cycles)
                yield self.env.timeout(cycles)
                if self.closed:
                    self.host.give(granted)
                    return
                assign(self.host.frames, granted, self.owner, int(State.POOL))
                self.put(granted)
                self._log(Kind.GRANT, len(granted))  # what a suspended vCPU took at once is not in the level
                if self.host.starving:
                    self.host.call_reclaim()
                yield from self.surrender(max(self.spec.max, self.wanted), Kind.SPARE)
            if self.closed:
                return
            self.below_min = self.env.event()
            if self._waiting or len(self.pages) < self.spec.min:
                self._call_host()  # sunk below while spare pages were taken

    def _grant_cost(self, pages: int) -> int:
        """Cycles of handing over pages, each cleared so that nothing of its last owner shows."""
        return self.costs.grant_fixed + pages * (self.costs.grant_page + self.costs.zero_page)

    def _call_host(self) -> None:
        if not self.below_min.triggered:
            self.below_min.succeed()

    def _send(self, kind: Kind, pages: int, cycles: int, *, after: int = 0) -> None:
        self.messages.add(self.env.cycle + after, self.owner, kind, pages, cycles)

    def _log(self, kind: Kind, pages: int) -> None:
        self.log(Transfer(self.env.cycle, self.name, kind.name.lower(), pages, len(self.pages), self.host.free))


def reclaimer(env: Clock, host: HostMemory, pools: Sequence[PagePool]) -> Process:
    """Take what pools have above their minimum while the host's free memory is low (kswapd's place here)."""
    while True:
        yield host.low
        host.low = env.event()  # calls from here on are heard
        for pool in sorted(pools, key=lambda each: (each.spec.min - each.level, each.owner)):
            yield from pool.surrender(max(pool.spec.min, pool.wanted), Kind.SPARE, asked=True)
            if host.free >= host.marks.high and not host.starving:
                break
