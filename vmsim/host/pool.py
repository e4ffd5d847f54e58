"""A monitor's page pool and the host's side of it.

The protocol is that of the plex86 monitor: the monitor takes pages from its pool and gives unused ones back; under
the pool's minimum the host must refill it, over its maximum the host may take the spare pages for itself or for
other VMs, and does so at once. A vCPU that finds the pool empty is suspended until the refill comes; the others run on.
Large pages do not pass through the pool: the monitor asks the host for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.contracts import NEVER, PagePrices, Refills, Spares, Steps
from vmsim.frames.records import NO_FRAME, State
from vmsim.host.memory import HOST, HostMemory
from vmsim.host.supply import Supply
from vmsim.record.messages import Kind, MessageLog
from vmsim.record.outcome import Transfer
from vmsim.scenario.cpu import Cost
from vmsim.scenario.keys import Pool as PoolSpec

__all__ = ["PagePool", "reclaimer"]


class PagePool(Supply):
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
        refills: Refills,
    ) -> None:
        super().__init__(env, host, spec, costs, owner=owner, name=name, log=log, messages=messages)
        self.refills = refills
        self.called = env.event()  # triggered from the monitor's call until the host has done what it asked for
        self.floor = self.least = spec.min
        self.prices = PagePrices(
            page=costs.violation_pool,
            copied=costs.violation_pool,
            table=0,
            large=(costs.message + costs.grant_fixed, costs.host_zero),
        )
        env.process(self._refill())

    def _set_floor(self) -> None:
        """Note that somebody waits or nobody does, that the host has been called or is done."""
        self.floor = NEVER if self._waiting else 0 if self.called.triggered else self.refills.low(self)

    def reach(self, count: int) -> int:
        """Return how many of `count` pages are there."""
        return min(count, len(self.pages))

    def take(self, count: int) -> list[int]:
        """Return `count` pages if the pool has them and nobody waits, else none."""
        left = len(self.pages) - count
        if self._waiting or left < 0:
            return []
        taken = self.pages.take(count)
        if left < self.floor:
            self._call_host()
        return taken

    def take_block(self, order: int) -> int:
        """Return the first frame of a large page of 2**order frames from the host itself, or NO_FRAME.

        Nobody waits: the host answers at once, for `message`, `grant_fixed` and what clearing the page takes.
        """
        pfn = self.host.take_block(self.owner, order, State.GUEST) if self.may_take(1 << order) else NO_FRAME
        if pfn != NO_FRAME:
            costs, pages = self.costs, 1 << order
            self._send(Kind.NEED_LARGE, pages, costs.message)
            self._send(Kind.GRANT_LARGE, pages, costs.grant_fixed + costs.zero(order), after=costs.message)
        return pfn

    def put(self, pages: Sequence[int] | NDArray[np.int64]) -> None:
        """Add pages; suspended vCPUs get theirs first, and the host takes what is over the maximum."""
        self.pages.put(pages)
        if self._waiting:
            self._hand_out()
            self._set_floor()
        if (spare := -self.room) > 0:
            self.env.process(self._return(self._lift(spare), Kind.SPARE))
        if self.host.starving:
            self.host.call_reclaim()

    def surrender(self, level: int, kind: Kind, *, asked: bool = False) -> Steps[None]:
        """Give the host the pages above `level`, of the monitor's own accord or because the host `asked`."""
        spare = len(self.pages) - level
        if spare <= 0:
            return
        yield from self._return(self._lift(spare), kind, asked=asked)

    @property
    def room(self) -> int:
        """Pages that the pool may still get: up to its maximum, and what suspended vCPUs wait for."""
        return self.spec.max + self.wanted - len(self.pages)

    @property
    def _needy(self) -> bool:
        """Whether the host must refill the pool."""
        return bool(self._waiting) or len(self.pages) < self.refills.low(self)

    def _lift(self, count: int) -> NDArray[np.int64]:
        """Take pages out of the pool; they are on their way to the host."""
        taken = self.pages.drop(count)
        self._brought -= count
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
                count, asked = min(self.refills.count(self), self.room), self.env.cycle
                if self.limit:
                    count = yield from self.limit.admit(count)
                granted = yield self.host.request(HOST, count, State.HOST, asker=self.owner, patient=True)
                self.starved += self.env.cycle > asked
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
                self._brought += len(granted)
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
        kept = 0 if self.closed or not self._needy else min(len(granted), self.room)
        if kept < len(granted):
            self.host.give(granted[kept:])
        return granted[:kept]

    def _grant_cost(self, pages: int) -> int:
        """Cycles of handing over pages, each cleared so that nothing of its last owner shows."""
        return self.costs.grant_fixed + pages * (self.costs.grant_page + self.costs.host_zero)

    def _call_host(self) -> None:
        """Say what is missing. A host at work looks at the pool before it is done, and an idle one hears it later."""
        self._send(Kind.NEED_PAGES, self.wanted + max(0, self.refills.low(self) - len(self.pages)), self.costs.message)
        if not self.called.triggered:
            self.called.succeed()
        self._set_floor()

    def _send(self, kind: Kind, pages: int, cycles: int, *, after: int = 0) -> None:
        self.messages.add(self.env.cycle + after, self.owner, kind, pages, cycles)

    def _log(self, kind: Kind, pages: int) -> None:
        self._moved[kind] += 1
        self._moved_pages[kind] += pages
        self.log(Transfer(self.env.cycle, self.name, kind.name.lower(), pages, len(self.pages), self.host.free))


def _any_spare(pools: Sequence[Supply]) -> bool:
    """Return whether any pool has pages to spare."""
    for pool in pools:  # noqa: SIM110  (each look at free memory asks all: a generator takes twice as long)
        if pool.pages.view[0] > pool.least:
            return True
    return False


def reclaimer(env: Clock, host: HostMemory, pools: Sequence[Supply], spares: Spares) -> Steps[None]:
    """Take what pools have to spare while the host's free memory is low (kswapd's place here), as a policy says."""
    host.first = lambda waiting: spares.first(waiting, pools)
    host.served = spares.served
    while True:
        yield host.low
        host.low = env.event()  # calls from here on are heard
        for pool in pools if len(host.zone) > 1 else ():
            pool.pages.gather()
        if _any_spare(pools):  # under pressure none has any
            for pool, level in spares.levels(host, pools):
                yield from pool.surrender(max(level, pool.kept), Kind.SPARE, asked=True)
                if host.free >= host.marks.high and not host.starving:
                    break
        if host.shrinker and (host.free < host.marks.high or host.starving):
            host.shrinker.wake()
