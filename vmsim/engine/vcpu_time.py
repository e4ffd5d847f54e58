"""Where a vCPU's time goes: what it has used and waited, by cause, and what it owes to the simulated clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import simpy

from vmsim.base.clock import Clock
from vmsim.contracts import Steps
from vmsim.guest.locks import LOCK_WAIT
from vmsim.guest.reclaim import GUEST_SWAP_WAIT
from vmsim.host.limits import LIMIT_WAIT
from vmsim.host.pressure import Pressure
from vmsim.host.shootdown import SHOOTDOWN
from vmsim.host.swap.swap import SWAP_WAIT

__all__ = [
    "CAUSES",
    "IDLE_WAITS",
    "MANAGEMENT",
    "MEMORY_WAITS",
    "WAITS",
    "WAITS_FOR_OTHERS",
    "VcpuTime",
]

WAITS = ("pool_wait", "host_wait", "pcpu_wait", "io_wait")
MEMORY_WAITS = ("pool_wait", "host_wait")
MANAGEMENT = ("guest_fault", "exit", *MEMORY_WAITS)
CAUSES = ("compute", "guest_fault", "exit", "switch", *WAITS)
STALLS = (*MEMORY_WAITS, SWAP_WAIT, LIMIT_WAIT)  # that Linux counts as pressure on memory
IDLE_WAITS = ("io_wait", LOCK_WAIT, "barrier_wait", GUEST_SWAP_WAIT)  # in which a guest's CPU has nothing to do
WAITS_FOR_OTHERS = (LOCK_WAIT, "barrier_wait", SHOOTDOWN)  # for other vCPUs of the VM, where there are any


class _FirstTouch(AbstractContextManager[None]):
    """What a vCPU does as long as it is in this is for a first touch."""

    __slots__ = ("_before", "_vcpu")

    def __init__(self, vcpu: VcpuTime) -> None:
        self._vcpu = vcpu

    def __enter__(self) -> None:
        self._before, self._vcpu.touching = self._vcpu.touching, True

    def __exit__(self, *_: object) -> None:
        self._vcpu.touching = self._before


class VcpuTime:
    """The time of a vCPU.

    Parameters
    ----------
    env : Clock
        Simulated time.
    causes : sequence of str, optional
        What it may use time or wait for beside CAUSES.
    """

    def __init__(self, env: Clock, causes: Sequence[str] = ()) -> None:
        self.env = env
        self.cycles: Counter[str] = Counter(dict.fromkeys((*CAUSES, *causes), 0))
        self.waits: Counter[str] = Counter(dict.fromkeys((*WAITS, *causes), 0))
        self.first_touch: Counter[str] = Counter()  # of `cycles`, those that first touches took
        self.touching = False  # whether what it does now is for a first touch
        self.since: tuple[str, int] | None = None  # what it waits for now, and from when
        self.kind = 0  # of the fault that it takes, so far (`contracts.faults.FaultKind`)
        self.owed = 0  # cycles used and not yet paid in simulated time
        self.pressure: Pressure | None = None  # that its waits are part of, where somebody wants to know it
        self.resumed: Callable[[Any], None] = _nothing  # called when it goes on after others may have run
        self.follows = False  # whether anybody wants to be
        self.enters: Callable[[], None] = _nothing_more  # called before it goes on in the guest
        self._imposed = False  # others have made it exit since it last made an access

    @property
    def now(self) -> int:
        """The cycle this vCPU has reached, what it owes included."""
        return self.env.cycle + self.owed

    def owe(self, cause: str, cycles: int) -> None:
        """Use cycles for `cause`, to be paid in simulated time before anything shared is touched."""
        self.owed += cycles
        self.cycles[cause] += cycles
        if self.touching:
            self.first_touch[cause] += cycles

    def settle(self) -> simpy.Event:
        """Return an event that pays what is owed."""
        owed, self.owed = self.owed, 0
        event = self.env.after(owed)
        if self.follows:
            event.callbacks.append(self.resumed)
        return event

    def impose(self, cycles: int) -> None:
        """Have it use cycles for an exit that another makes it take, whatever it is about."""
        self.owed += cycles
        self.cycles["exit"] += cycles
        self._imposed = True

    def until(self, event: simpy.Event, cause: str) -> Steps[Any]:
        """Wait for an event; return its value. The time has the cause given."""
        self.since = cause, self.env.cycle
        stalled = cause in STALLS
        pressure = self.pressure if stalled or cause in IDLE_WAITS else None
        if pressure:
            pressure.leave(stalled=stalled)
        value = yield event
        self.resumed(None)
        if pressure:
            pressure.enter(stalled=stalled)
        if self.touching and cause in MEMORY_WAITS:
            self.first_touch[cause] += self.env.cycle - self.since[1]
        self.cycles[cause] += self.env.cycle - self.since[1]
        self.since = None
        self.waits[cause] += 1
        return value

    def first(self) -> AbstractContextManager[None]:
        """Count the cycles of what is done inside, waits for memory included, as those of a first touch."""
        return _FirstTouch(self)

    def time_by_cause(self) -> Counter[str]:
        """Return the cycles used or waited so far, a wait under way included."""
        cycles = self.cycles.copy()
        if self.since:
            cause, asked = self.since
            cycles[cause] += self.env.cycle - asked
        return cycles

    def first_touch_by_cause(self) -> dict[str, int]:
        """Return what first touches took of `time_by_cause`, of the causes that are memory management."""
        cycles = {cause: self.first_touch[cause] for cause in MANAGEMENT}
        if self.since and self.touching and self.since[0] in MEMORY_WAITS:
            cycles[self.since[0]] += self.env.cycle - self.since[1]
        return cycles


def _nothing(_: Any) -> None:
    """Nobody wants to know."""


def _nothing_more() -> None:
    """Do nothing: nobody is to be told."""
