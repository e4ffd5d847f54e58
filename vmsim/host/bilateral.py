"""The host's side of an allocator that it shares with a guest's kernel (HyperAlloc, EuroSys 2025).

The host keeps a state of each huge frame of 2 MiB. *Installed*: it has memory, or gets some when it is touched. *Soft*:
it is free, the host has its memory, and the guest asks for some before it uses it. *Hard*: the host has allocated it,
so that the guest does not get it. The host finds what is free in the allocator's words, changes them itself, and
unmaps; no vCPU leaves the guest but to forget. What it gives back is soft. The guest's request is the one exit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from vmsim.base.clock import Clock
from vmsim.contracts import SharedAllocator, Steps, Words
from vmsim.host.device_thread import DeviceThread, Forget
from vmsim.host.guest_memory import GuestMemory
from vmsim.machine.formats import ENTRIES
from vmsim.scenario.bilateral import BilateralSpec
from vmsim.scenario.cpu import Cost
from vmsim.tables.backing import BALLOONED, count_leaves

__all__ = ["Bilateral"]

_HUGE: Final = ENTRIES  # frames of a huge one
_COUNTED: Final = ("looked", "soft", "hard", "restored", "installed", "freed")


class Bilateral(DeviceThread):
    """The thread of the host's that takes memory from one VM's allocator.

    A step's changes are made at once, and its time follows: of a huge frame in pages of 4 KiB that is up to 512 of
    `discard_page`.

    Parameters
    ----------
    env : Clock
        Simulated time.
    spec : BilateralSpec
        What it is told.
    costs, memory, forget, horizon, log
        As of `DeviceThread`.
    shared : SharedAllocator
        The allocator.

    Attributes
    ----------
    target, actual : int
        Pages of 4 KiB that the guest is not to have, and that the host has allocated.
    hard : bool[huge frames]
        Which those are.
    counts : Counter
        Huge frames whose state was `looked` at; that became `soft` and `hard`; that were `restored` (hard, now soft),
        and `installed`; host frames that were `freed`; and `cycles` that the thread took.
    """

    def __init__(
        self,
        env: Clock,
        spec: BilateralSpec,
        costs: Cost,
        *,
        memory: GuestMemory,
        forget: Forget,
        horizon: int,
        log: Callable[[str, int], None],
        shared: SharedAllocator,
    ) -> None:
        super().__init__(env, costs, message=0, memory=memory, forget=forget, horizon=horizon, log=log)
        self.spec = spec
        self.shared = shared
        self.target = self.actual = 0
        self.hard = np.zeros_like(shared.evicted)
        del self.counts["messages"]  # it is sent none
        self.counts.update(dict.fromkeys(_COUNTED, 0))

    def ask(self) -> Steps[None]:
        """Ask for the sizes of the schedule, each at its time from now on."""
        return self._ask_each(self.spec.steps, self.set_target)

    def set_target(self, pages: int) -> None:
        """Have the guest do without so many pages of 4 KiB, in whole huge frames."""
        pages = pages // _HUGE * _HUGE
        if pages != self.target:
            self.target = pages
            self._tell()

    def run(self) -> Steps[None]:
        """Have the guest do without what it is to, and now and then take the memory of what is free, from now on.

        Where too little is free for a size it looks again as often.
        """
        due = self.env.cycle + self.spec.every
        while not self._over:
            changed = self.changed
            reached = yield from self.approach()
            if self.spec.soft and self.env.cycle >= due:
                yield from self.look()
                due = self.env.cycle + self.spec.every
            if self.spec.soft:
                yield changed | self.env.background(max(0, due - self.env.cycle), frees=True)
            elif reached:
                yield changed
            else:
                yield changed | self.env.background(self.spec.every, frees=True)

    def look(self) -> Steps[None]:
        """Take the memory of what is free, once."""
        yield from self._read()
        while not self._over and len(found := np.flatnonzero(self.shared.free() & ~self.shared.evicted)):
            yield from self._evict(found)

    def approach(self) -> Steps[bool]:
        """Take huge frames or give some back until the size is reached; return whether it is."""
        while not self._over and self.actual != self.target:
            if self.actual > self.target:
                yield from self._restore()
            elif not (yield from self._take()):
                return False
        return True

    def installed(self, number: int) -> None:
        """Note that a huge frame has its memory, for which the guest has asked."""
        self.shared.restored(number)
        self.counts["installed"] += 1
        self.log("install", 0)

    def _read(self) -> Steps[None]:
        """Read the words of all huge frames."""
        self.counts["looked"] += len(self.hard)
        yield self._spend(len(self.hard) * self.costs.log_scan)

    def _take(self) -> Steps[bool]:
        """Allocate some huge frames that are free, those without memory first; return whether there were any."""
        yield from self._read()
        free, lacking = self.shared.free(), (self.target - self.actual) // _HUGE
        soft = np.flatnonzero(free & self.shared.evicted)
        others = np.flatnonzero(free & ~self.shared.evicted)
        count = min(lacking, self.shared.spare)
        numbers = soft[:count] if len(soft) else others[:count]
        if not len(numbers) or self._over:
            return False
        yield from self._evict(numbers, hard=True)
        return True

    def _restore(self) -> Steps[None]:
        """Give back huge frames, without their memory: as many as that takes about the time of the horizon."""
        most = max(1, self.horizon // max(1, self.costs.bilateral_frame))
        numbers = np.flatnonzero(self.hard)[: (self.actual - self.target) // _HUGE][:most]
        for number in numbers.tolist():
            self.memory.allow(number * _HUGE, _HUGE)
        self.shared.give(numbers)
        self.hard[numbers] = False
        self.actual -= len(numbers) * _HUGE
        self.counts["restored"] += len(numbers)
        yield self._spend(len(numbers) * self.costs.bilateral_frame)
        self.log("restore", 0)

    def _evict(self, numbers: Words, *, hard: bool = False) -> Steps[None]:
        """Take the memory of free huge frames in turn, about as many as take the horizon's time, and allocate them."""
        memory, costs, before, spent, done = self.memory, self.costs, self.memory.taken, 0, 0
        while done < len(numbers) and spent < self.horizon:
            number = int(numbers[done])
            first = number * _HUGE
            spent += costs.bilateral_frame
            if not self.shared.evicted[number]:
                spent += costs.discard_call
                spent += costs.discard_page * int(count_leaves(memory.backing, first, _HUGE))
            flush = memory.discard(first, _HUGE, BALLOONED if hard else 0)
            if flush.nested or flush.linear:
                spent += self.forget(flush, times=1)
            done += 1
        gone = numbers[:done]
        self.shared.evict(gone)
        if hard:
            self.shared.take(gone)
            self.hard[gone] = True
            self.actual += done * _HUGE
        self.counts["hard" if hard else "soft"] += done
        freed = memory.taken - before
        self.counts["freed"] += freed
        yield self._spend(spent)
        self.log("reclaim_hard" if hard else "reclaim_soft", freed)
