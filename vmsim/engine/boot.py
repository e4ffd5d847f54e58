"""The vCPU that a guest's kernel boots on before the clock starts: nothing costs anything, and nothing can wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import simpy
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.contracts import Steps, Stop, VmStopped
from vmsim.machine.tags import Spaces

__all__ = ["BootVcpu"]


class BootVcpu:
    """A vCPU that uses no time: what it owes is nothing, and settling it takes none.

    Parameters
    ----------
    env : Clock
        The simulation's clock, which stays at 0.
    registers, spaces
        Of the VM's first vCPU.
    """

    number = 0
    now = 0
    owed = kind = 0
    left = 1  # it never has to settle
    running = False

    def __init__(self, env: Clock, registers: NDArray[Any], spaces: Spaces) -> None:
        self.env = env
        self.registers = registers
        self.spaces = spaces
        self.first_touch: Counter[str] = Counter()

    def owe(self, cause: str, cycles: int) -> None:
        """Pay nothing: the clock has not started."""

    def impose(self, cycles: int) -> None:
        """Pay nothing: nobody works beside it."""

    def first(self) -> AbstractContextManager[None]:
        """Count nothing."""
        return nullcontext()

    def interrupt(self, work: Callable[[Any], Steps[None]]) -> None:
        """Refuse: no other vCPU runs yet."""
        raise AssertionError("nobody interrupts the first vCPU before the clock starts")

    def shoot_down(self, others: Sequence[Any], work: Callable[[Any], Steps[None]], *, pages: int) -> Steps[None]:
        """Interrupt nobody: no other vCPU runs yet."""
        assert not others
        return
        yield

    def kick_cycles(self) -> int:
        """Return 0: no other vCPU runs yet."""
        return 0

    kick_others = kick_cycles

    def kick(self, vcpus: Sequence[Any], paid: Callable[[Any, int], None]) -> int:
        """Return 0: no vCPU runs yet."""
        return 0

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
