"""The page-pool protocol as the reference has it (docs, "The page pool" and "The host's memory"), counted in integers.

No frames, no allocator, no SimPy: pages are numbers, processes are generators on a heap of their own. What is said and
what moves is written down, to be compared with what the simulator's pools say and move.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count
from math import ceil
from typing import Any

MESSAGE, GRANT_FIXED, GRANT_PAGE, RECLAIM_FIXED, RECLAIM_PAGE = 2435, 1650, 1733, 1650, 295

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
    refill: str = "batch"
    shares: int = 1000
    used: int = 0  # taken by the monitor, less what it put back
    noted: tuple[int, int] = (0, 0)  # the time of the last refill, and what was used by then
    speed: tuple[int, int] = (0, 0)  # pages, in 1024ths, and cycles: what is remembered of how fast they are used

    @property
    def wanted(self) -> int:
        return sum(pages for pages, _ in self.waiting)

    @property
    def needy(self) -> bool:
        return self.level < self.low or bool(self.waiting)

    @property
    def ahead(self) -> int:
        """Twice the n of n = r (M + F + n P), with r pages used in a cycle; without end it is the maximum."""
        if not self.speed[0]:
            return 0
        rate = Fraction(self.speed[0], 1024 * self.speed[1])
        if rate * GRANT_PAGE >= 1:
            return self.most
        return min(self.most, ceil(2 * rate * (MESSAGE + GRANT_FIXED) / (1 - rate * GRANT_PAGE)))

    @property
    def low(self) -> int:
        return max(self.least, self.ahead if self.refill == "predictive" else 0)

    def next_refill(self, now: int) -> int:
        if self.refill == "proportional":
            return max(1, ceil(Fraction(self.most + self.wanted - self.level, 2)))
        if self.refill == "batch":
            return self.batch
        if now > self.noted[0]:
            used, time = self.used - self.noted[1], now - self.noted[0]
            self.speed = max(0, self.speed[0] // 2 + 1024 * used), self.speed[1] // 2 + time
            self.noted = now, self.used
        return max(1, self.ahead, self.low - self.level) if self.speed[0] else self.batch


class TwinHost:
    """A host of so many free pages, its pools, what they said, and what moved."""

    def __init__(
        self,
        free: int,
        marks: tuple[int, int, int],
        pools: list[tuple[int, int, int]],
        refill: str = "batch",
        spares: str = "largest",
        shares: Sequence[int] = (),
    ) -> None:
        self.time = Time()
        self.free = free
        self.min, self.low, self.high = marks
        self.queue: list[tuple[int, Signal, TwinPool]] = []
        self.spares = spares
        self.short = Signal()
        self.pools = [TwinPool(owner, *spec, refill=refill) for owner, spec in enumerate(pools)]
        for pool, weight in zip(self.pools, shares, strict=False):
            pool.shares = weight
        self.had = [0] * len(pools)  # frames that each was given when it asked
        self.said: list[tuple[int, int, str, int, int]] = []
        self.moved: list[tuple[int, int, str, int, int, int]] = []
        for pool in self.pools:
            self.time.start(self._refill(pool))
        self.time.start(self._reclaim())

    # ---- the host's allocator

    def give(self, pages: int) -> None:
        self.free += pages
        self._serve()

    def _ask(self, pages: int, pool: TwinPool) -> Signal:
        signal = Signal()
        self.queue.append((pages, signal, pool))
        self._serve()
        return signal

    def _serve(self) -> None:
        while self.queue:
            if self.free <= self.min:
                self._want()
                return
            turn = self._whose_turn()
            pages, signal, pool = self.queue.pop(turn)
            got = min(pages, self.free - self.min)
            self.free -= got
            if self.free < self.low:
                self._want()
            self.had[pool.owner] += got
            self.time.send(signal, got)

    def _weight(self, pool: TwinPool) -> int:
        return pool.shares if self.spares == "shares" else 1

    def _whose_turn(self) -> int:
        """Who asked first, who lacks most, or who had least for its weight; of equals who asked, or stands, first."""
        pools = [pool for _, _, pool in self.queue]
        if self.spares == "neediest":
            lacks = [pool.wanted + max(0, pool.least - pool.level) for pool in pools]
            return lacks.index(max(lacks))
        if self.spares in ("fair", "shares"):
            most = max(self._weight(pool) for pool in self.pools)
            has = [(self.had[pool.owner] * most // self._weight(pool), pool.owner) for pool in pools]
            return has.index(min(has))
        return 0

    def _want(self) -> None:
        if not self.short.sent:
            self.time.send(self.short)

    # ---- what a monitor does

    def take(self, pool: TwinPool, pages: int) -> Signal | None:
        """Take pages; return None if they were there, else what to wait for."""
        if not pool.waiting and pool.level >= pages:
            pool.level -= pages
            pool.used += pages
            if pool.level < pool.low and not pool.called.sent:
                self._call(pool)
            return None
        signal = Signal()
        pool.waiting.append((pages, signal))
        self._call(pool)
        return signal

    def put(self, pool: TwinPool, pages: int, *, granted: bool = False) -> None:
        pool.level += pages
        pool.used -= 0 if granted else pages
        while pool.waiting and pool.waiting[0][0] <= pool.level:
            first, signal = pool.waiting.popleft()
            pool.level -= first
            pool.used += first
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
                refill = pool.next_refill(self.time.now)
                got = yield self._ask(min(refill, pool.most + pool.wanted - pool.level), pool)
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
                self.put(pool, got, granted=True)
                self._move(pool, "grant", got)
            pool.called = Signal()

    def _reclaim(self) -> Steps:
        while True:
            yield self.short
            self.short = Signal()
            for pool, rest in self._givers():
                spare = pool.level - max(pool.least, pool.wanted, rest)
                if spare > 0:
                    pool.level -= spare
                    self._say(pool, "RECLAIM", spare, RECLAIM_FIXED)
                    self._say(pool, "SPARE", spare, spare * RECLAIM_PAGE, later=RECLAIM_FIXED)
                    yield from self._bring(pool, "spare", spare)
                if self.free >= self.high and not self.queue:
                    break

    def _givers(self) -> list[tuple[TwinPool, int]]:
        """Who gives, in turn, and what each is left with at least, besides what it must keep."""
        if self.spares in ("largest", "neediest"):
            return [(pool, 0) for pool in sorted(self.pools, key=lambda each: (each.least - each.level, each.owner))]
        missing = self.high - self.free + sum(pages for pages, _, _ in self.queue)
        keep = {pool.owner: max(pool.least, pool.wanted) for pool in self.pools}
        able = [pool for pool in self.pools if pool.level > keep[pool.owner]]
        missing = min(missing, sum(pool.level - keep[pool.owner] for pool in able))
        if missing <= 0:
            return []
        most = max(self._weight(pool) for pool in able)
        top = max(ceil(Fraction(pool.level * most, self._weight(pool))) for pool in able)
        for line in range(top, -1, -1):  # it sinks: what who has most weight keeps
            rest = [max(keep[pool.owner], line * self._weight(pool) // most) for pool in able]
            if sum(max(0, pool.level - each) for pool, each in zip(able, rest, strict=True)) >= missing:
                return [*zip(able, rest, strict=True)]
        raise AssertionError("they have as much as is missing")

    def _bring(self, pool: TwinPool, what: str, pages: int) -> Steps:
        yield RECLAIM_FIXED + pages * RECLAIM_PAGE
        self.give(pages)
        self._move(pool, what, pages)

    def _call(self, pool: TwinPool) -> None:
        self._say(pool, "NEED_PAGES", pool.wanted + max(0, pool.low - pool.level), MESSAGE)
        if not pool.called.sent:
            self.time.send(pool.called)

    def _say(self, pool: TwinPool, kind: str, pages: int, cycles: int, *, later: int = 0) -> None:
        self.said.append((self.time.now + later, pool.owner, kind, pages, cycles))

    def _move(self, pool: TwinPool, what: str, pages: int) -> None:
        self.moved.append((self.time.now, pool.owner, what, pages, pool.level, self.free))
