"""The host's side of a balloon: a virtio-balloon device (QEMU, hw/virtio/virtio-balloon.c).

Of a page that goes into the balloon, or is reported as free, its thread finds the memory and discards it. A page that
comes back has no memory before the guest uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.contracts import NO_FLUSH, Statistics, Steps, Words
from vmsim.host.device_thread import DeviceThread, Forget
from vmsim.host.guest_memory import GuestMemory
from vmsim.scenario.balloon import BalloonSpec
from vmsim.scenario.cpu import Cost
from vmsim.tables.backing import BALLOONED, count_leaves

__all__ = ["Balloon", "FreePageHints"]


class FreePageHints:
    """Which frames a guest has said are free since its dirty log was last read (QEMU, VirtIOBalloonFreePageHintStatus).

    QEMU has hints stop before it reads the log, and start anew when it has (virtio_balloon_free_page_hint_notify).

    Parameters
    ----------
    env : Clock
        Simulated time.
    frames : int
        Of the guest.

    Attributes
    ----------
    command : int
        By which the guest was asked last; 0: it is not asked.
    changed : Event
        Triggered when that changes next.
    pages : bool[frames]
        What it has said since.
    """

    def __init__(self, env: Clock, frames: int) -> None:
        self._env = env
        self._commands = self.command = 0
        self.changed = env.event()
        self.pages = np.zeros(frames, np.bool_)

    def restart(self) -> NDArray[np.bool_]:
        """Ask for hints anew; return what the guest has said since it was last asked, bool[frames]."""
        found, self.pages = self.pages, np.zeros_like(self.pages)
        self._commands += 1
        self._tell(self._commands)
        return found

    def done(self) -> None:
        """Ask for none any more."""
        self._tell(0)

    def _tell(self, command: int) -> None:
        self.command = command
        self.changed.succeed()
        self.changed = self._env.event()


class Balloon(DeviceThread):
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
    hints : FreePageHints or None
        What the guest says is free while its dirty log is read.
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
        forget: Forget,
        horizon: int,
        log: Callable[[str, int], None],
    ) -> None:
        thread: dict[str, Any] = {
            "message": costs.balloon_message,
            "memory": memory,
            "forget": forget,
            "horizon": horizon,
            "log": log,
        }
        super().__init__(env, costs, **thread)
        self.spec = spec
        self.target = self.actual = 0
        self.statistics: Statistics | None = None
        self.hints = FreePageHints(env, len(memory.backing)) if spec.hinting else None
        self.counts.update(dict.fromkeys(("blocks", "freed", "reports", "reported", "asked", "told"), 0))

    def run(self) -> Steps[None]:
        """Ask for the sizes of the schedule, each at its time from now on."""
        return self._ask_each(self.spec.steps, self.set_target)

    def set_target(self, pages: int) -> None:
        """Ask for a size of the balloon, in pages of 4 KiB; its driver is told by an interrupt."""
        if pages != self.target:
            self.target = pages
            self._tell()

    def inflate(self, firsts: Words, order: int) -> simpy.Event:
        """Take the memory of blocks of 2**order guest frames; return the event that this has been acknowledged."""
        return self._begin(self._inflate(firsts, order))

    def deflate(self, firsts: Words, order: int) -> simpy.Event:
        """Let the guest have blocks again."""
        return self._begin(self._deflate(firsts, order))

    def report(self, firsts: Words, orders: Words) -> simpy.Event:
        """Take the memory of free blocks, of 2**orders frames each, which the guest may use again afterwards."""
        return self._begin(self._report(firsts, orders))

    def hint(self, firsts: Words, order: int, command: int) -> simpy.Event:
        """Note that blocks are free; what an older command has asked for is not (qemu_guest_free_page_hint)."""
        return self._begin(self._hint(firsts, order, command))

    def now_has(self, pages: int) -> None:
        """Note how many pages are in the balloon."""
        self.actual = pages

    def tell(self, statistics: Statistics) -> None:
        """Note what the guest says of its memory."""
        self.statistics = statistics
        self.counts["told"] += 1

    def _hint(self, firsts: Words, order: int, command: int) -> Steps[None]:
        assert self.hints
        yield self._spend(len(firsts) * self.costs.balloon_entry)
        if self._over or command != self.hints.command:
            return
        for first in firsts.tolist():
            self.hints.pages[first : first + (1 << order)] = True
        self.log("hint", 0)

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
