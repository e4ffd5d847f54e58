"""A monitor's page pool and the host's side of it.

The protocol is that of the plex86 monitor: the monitor takes pages from its pool and gives unused ones back; under
the pool's minimum the host must refill it, over its maximum the host may take the spare pages for itself or for
other VMs, and does so at once. A vCPU that finds the pool empty is suspended until the refill comes; the others run on.
Large pages do not pass through the pool: the monitor asks the host for each.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.base.ledger import Ledger
from vmsim.contracts import NEVER, Steps
from vmsim.frames.buddy import NO_FRAME, State
from vmsim.frames.stack import Stack
from vmsim.host.memory import HOST, HostMemory
from vmsim.record.messages import Kind, MessageLog
from vmsim.record.outcome import Transfer
from vmsim.scenario.cpu import Cost
from vmsim.scenario.tables import Pool as PoolSpec

__all__ = ["PagePool", "reclaimer"]


class PagePool:
    """Free pages of one monitor, kept between a minimum and a maximum by the host.

    Attributes
    ----------
    floor : int
        Free pages that may be left for a page to be taken without anybody being called or waited for.
    """

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
        self.called = env.event()  # triggered from the monitor's call until the host has done what it asked for
        self.closed = False
        self._moved: Counter[Kind] = Counter()  # transfers, and pages of all, by kind
        self._moved_pages: Counter[Kind] = Counter()
        self._waiting: deque[tuple[int, simpy.Event]] = deque()
        self.floor = spec.min
        env.process(self._refill())

    @property
    def level(self) -> int:
        """Free pages in the pool."""
        return len(self.pages)

    def _set_floor(self) -> None:
        """Note that somebody waits or nobody does, that the host has been called or is done."""
        self.floor = NEVER if self._waiting else 0 if self.called.triggered else self.spec.min

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
        if left < self.spec.min and not self.called.triggered:
            self._call_host()
        return taken

    def take_block(self, order: int) -> int:
        """Return the first frame of a large page of 2**order frames from the host itself, or NO_FRAME.

        Nobody waits: the host answers at once, for `message`, `grant_fixed` and what clearing the page takes.
        """
        pfn = self.host.take_block(self.owner, order, State.GUEST)
        if pfn != NO_FRAME:
            costs, pages = self.costs, 1 << order
            self._send(Kind.NEED_LARGE, pages, costs.message)
            self._send(Kind.GRANT_LARGE, pages, costs.grant_fixed + costs.zero(order), after=costs.message)
        return pfn

    def request(self, count: int) -> simpy.Event:
        """Return an event that gives a list of `count` pages once the pool has them; first come, first served.

        That is a call to the host, even while it works on an earlier one.
        """
        event = self.env.event()
        self._waiting.append((count, event))
        self._call_host()
        return event

    def put(self, pages: Sequence[int] | NDArray[np.int64]) -> None:
        """Add pages; suspended vCPUs get theirs first, and the host takes what is over the maximum."""
        self.pages.put(pages)
        while self._waiting and len(self.pages) >= self._waiting[0][0]:
            count, event = self._waiting.popleft()
            event.succeed(self.pages.take(count))
            self._set_floor()
        if (spare := -self._room) > 0:
            self.env.process(self._return(self._lift(spare), Kind.SPARE))
        if self.host.starving:
            self.host.call_reclaim()

    def surrender(self, level: int, kind: Kind, *, asked: bool = False) -> Steps[None]:
        """Give the host the pages above `level`, of the monitor's own accord or because the host `asked`."""
        spare = len(self.pages) - level
        if spare <= 0:
            return
        yield from self._return(self._lift(spare), kind, asked=asked)

    def close(self) -> Steps[None]:
        """Give everything back. The VM has ended."""
        self.closed = True
        yield from self.surrender(0, Kind.RETURN)

    @property
    def _room(self) -> int:
        """Pages that the pool may still get: up to its maximum, and what suspended vCPUs wait for."""
        return self.spec.max + self.wanted - len(self.pages)

    @property
    def _needy(self) -> bool:
        """Whether the host must refill the pool."""
        return bool(self._waiting) or len(self.pages) < self.spec.min

    def _lift(self, count: int) -> NDArray[np.int64]:
        """Take pages out of the pool; they are on their way to the host."""
        taken = self.pages.drop(count)
        self.host.hand_over(taken, HOST, State.HOST)
        return taken

    def _return(self, taken: NDArray[np.int64], kind: Kind, *, asked: bool = False) -> Steps[None]:
        """Bring pages that were lifted to the host."""
        spare = len(taken)
        fixed, cycles = self.costs.reclaim_fixed, self.costs.reclaim_fixed + spare * self.costs.reclaim_page
        if asked:
            self._send(Kind.RECLAIM, spare, fixed)
            self._send(kind, spare, cycles - fixed, after=fixed)
        else:
            self._send(kind, spare, cycles)
        yield self.env.timeout(cycles)
        self.host.give(taken)
        self._log(kind, spare)

    def _refill(self) -> Steps[None]:
        """Keep the pool between its watermarks (host side of the page-pool protocol)."""
        while True:
            yield self.called
            yield self.env.timeout(self.costs.message)
            while self._needy and not self.closed:
                count = min(self.spec.batch, self._room)
                granted = yield self.host.request(HOST, count, State.HOST, asker=self.owner)
                granted = self._keep(granted)
                if not len(granted):
                    continue
                cycles = self._grant_cost(len(granted))
                self._send(Kind.GRANT, len(granted), cycles)
                yield self.env.timeout(cycles)
                if self.closed:
                    self.host.give(granted)
                    return
                self.host.hand_over(granted, self.owner, State.POOL)
                self.put(granted)
                self._log(Kind.GRANT, len(granted))  # what a suspended vCPU took at once is not in the level
            if self.closed:
                return
            self.called = self.env.event()
            self._set_floor()

    def _keep(self, granted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what of some frames the pool still has room for; the others are the host's again, uncleared.

        While the host had none, the monitor may have given pages back, or its VM may have ended.
        """
        kept = 0 if self.closed or not self._needy else min(len(granted), self._room)
        if kept < len(granted):
            self.host.give(granted[kept:])
        return granted[:kept]

    def _grant_cost(self, pages: int) -> int:
        """Cycles of handing over pages, each cleared so that nothing of its last owner shows."""
        return self.costs.grant_fixed + pages * (self.costs.grant_page + self.costs.zero_page)

    def _call_host(self) -> None:
        """Say what is missing. A host at work looks at the pool before it is done, and an idle one hears it later."""
        self._send(Kind.NEED_PAGES, self.wanted + max(0, self.spec.min - len(self.pages)), self.costs.message)
        if not self.called.triggered:
            self.called.succeed()
        self._set_floor()

    def _send(self, kind: Kind, pages: int, cycles: int, *, after: int = 0) -> None:
        self.messages.add(self.env.cycle + after, self.owner, kind, pages, cycles)

    def register(self, ledger: Ledger) -> None:
        """Say what it counts: transfers, their pages, and the messages that were exchanged about it and buffers."""
        ledger.counters("pool", self._transfers)
        ledger.counters("messages", lambda: self.messages.sent(self.owner))

    def _transfers(self) -> dict[str, int]:
        counts = {}
        for kind in (Kind.GRANT, Kind.SPARE, Kind.RETURN):
            counts[kind.name.lower()] = self._moved[kind]
            counts[f"{kind.name.lower()}_pages"] = self._moved_pages[kind]
        return counts

    def _log(self, kind: Kind, pages: int) -> None:
        self._moved[kind] += 1
        self._moved_pages[kind] += pages
        self.log(Transfer(self.env.cycle, self.name, kind.name.lower(), pages, len(self.pages), self.host.free))


def reclaimer(env: Clock, host: HostMemory, pools: Sequence[PagePool]) -> Steps[None]:
    """Take what pools have above their minimum while the host's free memory is low (kswapd's place here)."""
    while True:
        yield host.low
        host.low = env.event()  # calls from here on are heard
        for pool in sorted(pools, key=lambda each: (each.spec.min - each.level, each.owner)):
            yield from pool.surrender(max(pool.spec.min, pool.wanted), Kind.SPARE, asked=True)
            if host.free >= host.marks.high and not host.starving:
                break
