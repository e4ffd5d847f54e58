"""The vCPU that a guest's kernel boots on before the clock starts: nothing costs anything, and nothing can wait."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import simpy

from vmsim.base.clock import Clock
from vmsim.contracts import Steps, Stop, VmStopped

__all__ = ["BootVcpu"]


class BootVcpu:
    """A vCPU that uses no time: what it owes is nothing, and settling it takes none.

    Parameters
    ----------
    env : Clock
        The simulation's clock, which stays at 0.
    """

    now = 0
    owed = 0
    left = 1  # it never has to settle
    running = False

    def __init__(self, env: Clock) -> None:
        self.env = env
        self.first_touch: Counter[str] = Counter()

    def owe(self, cause: str, cycles: int) -> None:
        """Pay nothing: the clock has not started."""

    def impose(self, cycles: int) -> None:
        """Pay nothing: nobody works beside it."""

    def first(self) -> AbstractContextManager[None]:
        """Count nothing."""
        return nullcontext()

    def settle(self) -> simpy.Event:
        """Return an event that nobody has to wait for."""
        return self.env.event()

    def wait(self, event: simpy.Event, cause: str) -> Steps[Any]:
        """Refuse to wait: nobody frees memory before the clock starts.

        Raises
        ------
        VmStopped
            Always.
        """
        raise VmStopped(Stop.NOT_BACKED)
        yield
