"""Mode native: the kernel of the host handles the faults of a program, and the hardware walks that kernel's tables."""

from __future__ import annotations

from collections import Counter

from vmsim.contracts import Exit, Resume, Steps, Vcpu, Words
from vmsim.contracts.faults import FaultTimes
from vmsim.monitor.base import BaseMonitor
from vmsim.monitor.native.commit import NativeMode

__all__ = ["NativeMonitor"]


class NativeMonitor(BaseMonitor):
    """Where no monitor is: whatever stops the program is a page fault, and the kernel's."""

    pins_pages = False  # the kernel that asks the device is the host's own

    def __init__(self, memory: Words) -> None:
        self.memory = memory
        self.exits = Counter()
        self.exit_cycles = Counter()
        self.latency = FaultTimes()
        self._mode = NativeMode(memory)

    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume]:
        """Hand a page fault to the kernel."""
        yield from self.deliver(vcpu, exit.gva, exit.code)
        return Resume.RETRY

    def fast(self, vcpu: Vcpu) -> NativeMode | None:
        """Return its state as compiled code hands on page faults with it."""
        return self._mode if self.compiled else None
