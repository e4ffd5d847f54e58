"""The host's side of a device that takes memory from its VM: a thread of the process that runs the VM.

It takes messages in the order in which they come. Memory that is discarded (madvise, MADV_DONTNEED) is unmapped by the
host, the processors forget it, and its frames are free. What the thread does within `host.horizon` is one event: so far
vCPUs may be ahead of what others do to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import simpy

from vmsim.base.clock import Clock
from vmsim.contracts import Flush, Steps
from vmsim.host.guest_memory import GuestMemory
from vmsim.scenario.cpu import Cost

__all__ = ["DeviceThread", "Forget"]


class Forget(Protocol):
    """Who has a VM's processors forget."""

    def __call__(self, flush: Flush, *, times: int) -> int:
        """Have the VM's processors forget a flush, made so many times; return the cycles that this takes the host."""
        ...


class DeviceThread:
    """The thread of one device of a VM.

    Parameters
    ----------
    env : Clock
        Simulated time.
    costs : Cost
        What its steps take.
    message : int
        Cycles of a message, there and back.
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
    changed : Event
        The next time that the guest is asked for another size.
    counts : Counter
        `messages` and `cycles` that they took.
    """

    def __init__(
        self,
        env: Clock,
        costs: Cost,
        *,
        message: int,
        memory: GuestMemory,
        forget: Forget,
        horizon: int,
        log: Callable[[str, int], None],
    ) -> None:
        self.env = env
        self.costs = costs
        self.message = message
        self.memory = memory
        self.forget = forget
        self.horizon = horizon
        self.log = log
        self.changed = env.event()
        self.counts: Counter[str] = Counter({"messages": 0, "cycles": 0})
        self._over = False
        self._timer: simpy.Event | None = None  # that a message waits for
        self._last: simpy.Event | None = None  # message

    def stop(self) -> None:
        """Do nothing more: the VM has ended. What of a message is not done stays so."""
        self._over = True
        if self._timer is not None:
            self.env.abandon(self._timer)

    def _ask_each(self, sizes: Iterable[tuple[int, int]], ask: Callable[[int], None]) -> Steps[None]:
        """Ask for the sizes of a schedule, each at its time, in cycles from now on."""
        start = self.env.cycle
        for time, size in sizes:
            if time:
                yield self.env.background(max(0, start + time - self.env.cycle), frees=True)
            ask(size)

    def _tell(self) -> None:
        """Tell whoever waits for it that another size is asked for."""
        self.changed.succeed()
        self.changed = self.env.event()

    def _begin(self, work: Steps[None]) -> simpy.Event:
        """Do a message's work after that of those which came before."""
        self._last = self.env.process(self._serve(self._last, work))
        return self._last

    def _serve(self, before: simpy.Event | None, work: Steps[None]) -> Steps[None]:
        if before is not None and before.callbacks is not None:
            yield before
        yield self._spend(self.message)
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
