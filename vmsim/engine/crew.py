"""What the vCPUs of one VM share beside its memory: how far its workload has come, barriers, and its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simpy

from vmsim.base.clock import Clock
from vmsim.base.ledger import Ledger
from vmsim.contracts import Steps, VmStopped
from vmsim.workloads import Chunk

__all__ = ["Crew", "Pause", "Stopped", "register_vcpus"]

Pause = tuple[int, Callable[[Any], Steps[None]]]


class Stopped(Exception):  # noqa: N818  (it reads as what it is)
    """The VM has ended on another of its vCPUs."""


class Crew:
    """The vCPUs of one VM.

    Parameters
    ----------
    env : Clock
        Simulated time.
    threads : int
        vCPUs that have something to run.
    progress : callable, optional
        Told of the accesses made so far.

    Attributes
    ----------
    done : int
        Accesses that all of them have made.
    pauses : list of (int, callable)
        Numbers of accesses, ascending, and what is then done, by the vCPU that reaches the number.
    vcpus : sequence of Vcpu
        They, by number.
    stopped : bool
        One of them has ended the VM.
    cut_short : bool
        One of them was in the middle of an operation or a fault then, waiting.
    """

    def __init__(self, env: Clock, threads: int, progress: Callable[[int], None] = lambda _: None) -> None:
        self.env = env
        self.threads = threads
        self.progress = progress
        self.done = 0
        self.pauses: list[Pause] = []
        self.stopped = self.cut_short = False
        self.vcpus: Sequence[Any] = ()
        self._waiting: list[simpy.Event] = []

    def pause_at(self, chunk: Chunk, position: int, turn: int) -> int:
        """Return the run to stop before: where the next pause is due, or else the chunk's end.

        As long as there are pauses to come, it is looked for before the next operation alone.
        """
        pauses, events = self.pauses, chunk.events
        if not pauses:
            return len(chunk.address)
        while turn < len(events) and events[turn].position == position:
            turn += 1
        limit = events[turn].position if turn < len(events) else len(chunk.address)
        made = np.cumsum(chunk.count[position:limit], dtype=np.int64)
        return min(limit, position + int(np.searchsorted(made, pauses[0][0] - self.done)) + 1)

    @property
    def due(self) -> bool:
        """Whether a pause is due."""
        return bool(self.pauses) and self.done >= self.pauses[0][0]

    def others(self, vcpu: Any) -> list[Any]:
        """Return all but one."""
        return [each for each in self.vcpus if each is not vcpu]

    def arrive(self) -> simpy.Event | None:
        """Come to a barrier; return what is to be waited for, None if all have come."""
        if self.stopped or len(self._waiting) + 1 >= self.threads:
            self._let_go()
            return None
        event = self.env.event()
        self._waiting.append(event)
        return event

    def given(self, value: Any) -> Any:
        """Return what a vCPU has waited for.

        Raises
        ------
        VmStopped
            It was given that: the VM ends, and what it waited for is not to be had.
        """
        if isinstance(value, VmStopped):
            self.cut_short = True
            raise value
        return value

    def stop(self) -> None:
        """End the VM on all of them: each finds out before its next access, who waits at a barrier at once."""
        self.stopped = True
        self._let_go()

    def _let_go(self) -> None:
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            event.succeed()


def register_vcpus(ledger: Ledger, vcpus: Sequence[Any]) -> None:
    """Say what the vCPUs of a VM count beside their time: how often they waited, and what first touches took."""

    def first_touch() -> Counter[str]:
        each = [Counter(vcpu.first_touch_by_cause()) for vcpu in vcpus]
        for other in each[1:]:
            each[0].update(other)
        return each[0]

    ledger.counters("waits", lambda: {cause: sum(vcpu.waits[cause] for vcpu in vcpus) for cause in vcpus[0].waits})
    ledger.counters("first_touch", first_touch)
