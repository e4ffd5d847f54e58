"""A vCPU that has nothing to do: its program waits, and its kernel may have work for it meanwhile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import simpy

from vmsim.base.clock import Clock
from vmsim.contracts import Steps
from vmsim.engine.vcpu_time import VcpuTime

__all__ = ["IdleVcpu"]


class IdleVcpu(VcpuTime, ABC):
    """The waits of a vCPU.

    Attributes
    ----------
    interrupts : deque
        Work that was asked for and is not done yet.
    wakes : bool
        Its kernel may have work for it while its program waits.
    """

    def __init__(self, env: Clock, causes: Sequence[str] = ()) -> None:
        super().__init__(env, causes)
        self.interrupts: deque[Callable[[Any], Steps[None]]] = deque()
        self.wakes = False
        self._alarm: simpy.Event | None = None

    @abstractmethod
    def enter(self, *, woken: bool = True) -> Steps[None]:
        """Get a core for a time slice."""

    @abstractmethod
    def leave(self) -> None:
        """Give the core back."""

    @abstractmethod
    def serve(self) -> Steps[None]:
        """Do what interrupts ask for."""

    def idle(self, event: simpy.Event, cause: str) -> Steps[Any]:
        """Wait for an event that only its program waits for, off the core; return its value."""
        while True:
            if not self.interrupts:  # none came while it did what others had asked for
                self._alarm = self.env.event()
                yield from self.until(event | self._alarm, cause)
                if event.triggered:
                    self._alarm = None
                    return event.value
                self.waits[cause] -= 1
            yield from self.enter()
            yield from self.serve()
            yield self.settle()
            self.leave()

    def wake(self) -> None:
        """Have it do at once what it was interrupted for, if its program waits for nothing but its own."""
        if self._alarm is not None and not self._alarm.triggered:
            self._alarm.succeed()
