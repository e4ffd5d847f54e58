"""The host's side of a balloon: a virtio-balloon device (QEMU, hw/virtio/virtio-balloon.c).

One thread of the process that runs the VM takes its messages in the order in which they come. Of a page that goes into
the balloon, or is reported as free, it finds the memory and discards it (madvise, MADV_DONTNEED): the host unmaps the
page, the processors forget it, and its frame is free. A page that comes back has no memory before the guest uses it.

What the thread does within `host.horizon` is one event: so far vCPUs may be ahead of what others do to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np
import simpy

from vmsim.base.clock import Clock
from vmsim.contracts import NO_FLUSH, Flush, Statistics, Steps, Words
from vmsim.host.guest_memory import GuestMemory
from vmsim.scenario.balloon import BalloonSpec
from vmsim.scenario.cpu import Cost
from vmsim.tables.backing import BALLOONED, count_leaves

__all__ = ["Balloon"]


class _Forget(Protocol):
    def __call__(self, flush: Flush, *, times: int) -> int:
        """Have the VM's processors forget a flush, made so many times; return the cycles that this takes the host."""
        ...


class Balloon:
    """The device of one VM.

    Parameters
    ----------
    env : Clock
        Simulated time.
    spec : BalloonSpec
        What it is told.
    costs : Cost
        What its steps take.
    memory : GuestMemory
        The VM's.
    forget : callable
        Has the VM's processors forget.
    horizon : int
        Cycles of work that are one event.
    log : callable
        Told of each message: what it was, and the pages whose frames are the host's now.

    Attributes
    ----------
    target, actual : int
        Pages of 4 KiB that are to be in the balloon, and that the driver says are.
    statistics : Statistics or None
        What the guest has last said of its memory.
    counts : Counter
        `messages` and `cycles` that they took; `blocks` that were discarded, `freed` frames; `reported` pages, and
        messages of `reports`; `asked`, requests for statistics, and `told`, answers.
    """

    def __init__(
        self,
        env: Clock,
        spec: BalloonSpec,
        costs: Cost,
        *,
        memory: GuestMemory,
        forget: _Forget,
        horizon: int,
        log: Callable[[str, int], None],
    ) -> None:
        self.env = env
        self.spec = spec
        self.costs = costs
        self.memory = memory
        self.forget = forget
        self.horizon = horizon
        self.log = log
        self.target = self.actual = 0
        self.changed = env.event()
        self.statistics: Statistics | None = None
        self.counts: Counter[str] = Counter(
            dict.fromkeys(("messages", "cycles", "blocks", "freed", "reports", "reported", "asked", "told"), 0)
        )
        self._over = False
        self._timer: simpy.Event | None = None  # that a message waits for
        self._last: simpy.Event | None = None  # message

    def run(self) -> Steps[None]:
        """Ask for the sizes of the schedule, each at its time from now on."""
        start = self.env.cycle
        for time, size in self.spec.steps:
            if time:
                yield self.env.background(max(0, start + time - self.env.cycle), frees=True)
            self.set_target(size)

    def set_target(self, pages: int) -> None:
        """Ask for a size of the balloon, in pages of 4 KiB; its driver is told by an interrupt."""
        if pages != self.target:
            self.target = pages
            self.changed.succeed()
            self.changed = self.env.event()

    def stop(self) -> None:
        """Do nothing more: the VM has ended. What of a message is not done stays so."""
        self._over = True
        if self._timer is not None:
            self.env.abandon(self._timer)

    def inflate(self, firsts: Words, order: int) -> simpy.Event:
        """Take the memory of blocks of 2**order guest frames; return the event that this has been acknowledged."""
        return self._begin(self._inflate(firsts, order))

    def deflate(self, firsts: Words, order: int) -> simpy.Event:
        """Let the guest have blocks again."""
        return self._begin(self._deflate(firsts, order))

    def report(self, firsts: Words, orders: Words) -> simpy.Event:
        """Take the memory of free blocks, of 2**orders frames each, which the guest may use again afterwards."""
        return self._begin(self._report(firsts, orders))

    def now_has(self, pages: int) -> None:
        """Note how many pages are in the balloon."""
        self.actual = pages

    def tell(self, statistics: Statistics) -> None:
        """Note what the guest says of its memory."""
        self.statistics = statistics
        self.counts["told"] += 1

    def _begin(self, work: Steps[None]) -> simpy.Event:
        """Do a message's work after that of those which came before."""
        self._last = self.env.process(self._serve(self._last, work))
        return self._last

    def _serve(self, before: simpy.Event | None, work: Steps[None]) -> Steps[None]:
        if before is not None and before.callbacks is not None:
            yield before
        yield self._spend(self.costs.balloon_message)
        if self._over:
            return
        self.counts["messages"] += 1
        yield from work

    def _spend(self, cycles: int) -> simpy.Event:
        self.counts["cycles"] += cycles
        self._timer = self.env.timeout(cycles)
        if self._over:
            self.env.abandon(self._timer)
        return self._timer

    def _inflate(self, firsts: Words, order: int) -> Steps[None]:
        orders = np.full(len(firsts), order)
        freed = yield from self._discard(firsts, orders, BALLOONED)
        self.log("inflate", freed)

    def _deflate(self, firsts: Words, order: int) -> Steps[None]:
        yield self._spend(len(firsts) * self.costs.balloon_entry)
        if self._over:
            return
        for first in firsts.tolist():
            self.memory.allow(first, 1 << order)
        self.log("deflate", 0)

    def _report(self, firsts: Words, orders: Words) -> Steps[None]:
        self.counts["reports"] += 1
        self.counts["reported"] += int((1 << orders).sum())
        freed = yield from self._discard(firsts, orders, 0)
        self.log("report", freed)

    def _discard(self, firsts: Words, orders: Words, to: int) -> Steps[int]:
        """Discard the memory of blocks; return how many frames are the host's now."""
        total, costs = 0, self.costs
        for part in self._parts(orders):
            spent, mapped, flush = 0, 0, NO_FLUSH
            before = self.memory.taken
            for first, sizes in _runs(firsts[part], 1 << orders[part]):
                starts = [first, *(first + np.cumsum(sizes)[:-1]).tolist()]
                pages = [int(count_leaves(self.memory.backing, *block)) for block in zip(starts, sizes, strict=True)]
                spent += len(sizes) * (costs.balloon_entry + costs.discard_call) + sum(pages) * costs.discard_page
                gone = self.memory.discard(first, sum(sizes), to)
                if gone != NO_FLUSH:  # each block's call has the processors forget by itself
                    mapped += sum(each > 0 for each in pages)
                    flush += gone
            freed = self.memory.taken - before
            total += freed
            self.counts["blocks"] += len(orders[part])
            self.counts["freed"] += freed
            spent += self.forget(flush, times=mapped)
            yield self._spend(spent)
            if self._over:
                break
        return total

    def _parts(self, orders: Words) -> Iterator[slice]:
        """Yield runs of blocks that are discarded in about the time of the horizon."""
        each = self.costs.balloon_entry + self.costs.discard_call + self.costs.discard_page
        most = max(1, self.horizon // max(1, each))
        for start in range(0, len(orders), most):
            yield slice(start, start + most)


def _runs(firsts: Words, sizes: Words) -> Iterator[tuple[int, list[int]]]:
    """Yield runs of blocks that lie one behind the other: the first frame, and the size of each block."""
    order = np.argsort(firsts)
    firsts, sizes = firsts[order], sizes[order]
    ends = np.flatnonzero(firsts[1:] != (firsts + sizes)[:-1]) + 1
    for start, stop in pairwise([0, *ends.tolist(), len(firsts)]):
        yield int(firsts[start]), sizes[start:stop].tolist()
