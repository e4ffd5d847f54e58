"""The page-pool protocol as the reference has it (docs, "The page pool" and "The host's memory"), counted in integers.

No frames, no allocator, no SimPy: pages are numbers, processes are generators on a heap of their own. What is said and
what moves is written down, to be compared with what the simulator's pools say and move.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

MESSAGE, GRANT_FIXED, GRANT_PAGE, RECLAIM_FIXED, RECLAIM_PAGE = 1000, 2000, 712, 2000, 200

Steps = Generator[Any, Any, Any]


class Signal:
    """Something that happens once, and gives a value to whoever waits."""

    def __init__(self) -> None:
        self.sent = False
        self.value: Any = None
        self.waiting: list[Steps] = []


class Time:
    """Processes that sleep (`yield cycles`) or wait (`yield signal`); those of one moment go in the order they came."""

    def __init__(self) -> None:
        self.now = 0
        self._heap: list[tuple[int, int, Steps, Any]] = []
        self._number = count()

    def start(self, process: Steps) -> None:
        heapq.heappush(self._heap, (self.now, next(self._number), process, None))

    def send(self, signal: Signal, value: Any = None) -> None:
        signal.sent, signal.value = True, value
        for process in signal.waiting:
            heapq.heappush(self._heap, (self.now, next(self._number), process, value))

    def run(self) -> None:
        while self._heap:
            self.now, _, process, value = heapq.heappop(self._heap)
            try:
                wanted = process.send(value)
            except StopIteration:
                continue
            if not isinstance(wanted, Signal):
                heapq.heappush(self._heap, (self.now + wanted, next(self._number), process, None))
            elif wanted.sent:
                heapq.heappush(self._heap, (self.now, next(self._number), process, wanted.value))
            else:
                wanted.waiting.append(process)


@dataclass
class TwinPool:
    """One pool: numbers alone."""

    owner: int
    least: int
    most: int
    batch: int
    level: int = 0
    called: Signal = field(default_factory=Signal)
    waiting: deque[tuple[int, Signal]] = field(default_factory=deque)
    closed: bool = False

    @property
    def wanted(self) -> int:
        return sum(pages for pages, _ in self.waiting)

    @property
    def needy(self) -> bool:
        return self.level < self.least or bool(self.waiting)


class TwinHost:
    """A host of so many free pages, its pools, what they said, and what moved."""

    def __init__(self, free: int, marks: tuple[int, int, int], pools: list[tuple[int, int, int]]) -> None:
        self.time = Time()
        self.free = free
        self.min, self.low, self.high = marks
        self.queue: deque[tuple[int, Signal]] = deque()
        self.short = Signal()
        self.pools = [TwinPool(owner, *spec) for owner, spec in enumerate(pools)]
        self.said: list[tuple[int, int, str, int, int]] = []
        self.moved: list[tuple[int, int, str, int, int, int]] = []
        for pool in self.pools:
            self.time.start(self._refill(pool))
        self.time.start(self._reclaim())

    # ---- the host's allocator

    def give(self, pages: int) -> None:
        self.free += pages
        self._serve()

    def _ask(self, pages: int) -> Signal:
        signal = Signal()
        self.queue.append((pages, signal))
        self._serve()
        return signal

    def _serve(self) -> None:
        while self.queue:
            pages, signal = self.queue[0]
            got = max(0, min(pages, self.free - self.min))
            self.free -= got
            if self.free < self.low or got == 0:
                self._want()
            if got == 0:
                return
            self.queue.popleft()
            self.time.send(signal, got)

    def _want(self) -> None:
        if not self.short.sent:
            self.time.send(self.short)

    # ---- what a monitor does

    def take(self, pool: TwinPool, pages: int) -> Signal | None:
        """Take pages; return None if they were there, else what to wait for."""
        if not pool.waiting and pool.level >= pages:
            pool.level -= pages
            if pool.level < pool.least and not pool.called.sent:
                self._call(pool)
            return None
        signal = Signal()
        pool.waiting.append((pages, signal))
        self._call(pool)
        return signal

    def put(self, pool: TwinPool, pages: int) -> None:
        pool.level += pages
        while pool.waiting and pool.waiting[0][0] <= pool.level:
            first, signal = pool.waiting.popleft()
            pool.level -= first
            self.time.send(signal)
        over = pool.level - pool.most - pool.wanted
        if over > 0:
            pool.level -= over
            self._say(pool, "SPARE", over, RECLAIM_FIXED + over * RECLAIM_PAGE)
            self.time.start(self._bring(pool, "spare", over))
        if self.queue:
            self._want()

    def close(self, pool: TwinPool) -> Steps:
        pool.closed = True
        if pool.level:
            pages, pool.level = pool.level, 0
            self._say(pool, "RETURN", pages, RECLAIM_FIXED + pages * RECLAIM_PAGE)
            yield from self._bring(pool, "return", pages)

    # ---- the host's side

    def _refill(self, pool: TwinPool) -> Steps:
        while not pool.closed:
            yield pool.called
            yield MESSAGE
            while pool.needy and not pool.closed:
                got = yield self._ask(min(pool.batch, pool.most + pool.wanted - pool.level))
                room = pool.most + pool.wanted - pool.level if pool.needy and not pool.closed else 0
                if got > room:
                    self.give(got - room)
                    got = room
                if not got:
                    continue
                cycles = GRANT_FIXED + got * GRANT_PAGE
                self._say(pool, "GRANT", got, cycles)
                yield cycles
                if pool.closed:
                    self.give(got)
                    return
                self.put(pool, got)
                self._move(pool, "grant", got)
            pool.called = Signal()

    def _reclaim(self) -> Steps:
        while True:
            yield self.short
            self.short = Signal()
            for pool in sorted(self.pools, key=lambda each: (each.least - each.level, each.owner)):
                spare = pool.level - max(pool.least, pool.wanted)
                if spare > 0:
                    pool.level -= spare
                    self._say(pool, "RECLAIM", spare, RECLAIM_FIXED)
                    self._say(pool, "SPARE", spare, spare * RECLAIM_PAGE, later=RECLAIM_FIXED)
                    yield from self._bring(pool, "spare", spare)
                if self.free >= self.high and not self.queue:
                    break

    def _bring(self, pool: TwinPool, what: str, pages: int) -> Steps:
        yield RECLAIM_FIXED + pages * RECLAIM_PAGE
        self.give(pages)
        self._move(pool, what, pages)

    def _call(self, pool: TwinPool) -> None:
        self._say(pool, "NEED_PAGES", pool.wanted + max(0, pool.least - pool.level), MESSAGE)
        if not pool.called.sent:
            self.time.send(pool.called)

    def _say(self, pool: TwinPool, kind: str, pages: int, cycles: int, *, later: int = 0) -> None:
        self.said.append((self.time.now + later, pool.owner, kind, pages, cycles))

    def _move(self, pool: TwinPool, what: str, pages: int) -> None:
        self.moved.append((self.time.now, pool.owner, what, pages, pool.level, self.free))
