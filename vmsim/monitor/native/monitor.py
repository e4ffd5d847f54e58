"""Mode native: the kernel of the host handles the faults of a program, and the hardware walks that kernel's tables."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from vmsim.base.histogram import Histogram
from vmsim.contracts import Exit, Kernel, Resume, Steps, Vcpu, Words
from vmsim.monitor.base import BaseMonitor
from vmsim.tables.backing import IDENTITY
from vmsim.tables.violation import make_nested

__all__ = ["NativeMonitor"]

_UNBACKED = make_nested()  # there is nothing to back: the frames are the host's
_NO_POOL = np.zeros(1, np.int64)


class NativeMonitor(BaseMonitor):
    """Where no monitor is: whatever stops the program is a page fault, and the kernel's."""

    pins_pages = False  # the kernel that asks the device is the host's own

    def __init__(self, memory: Words) -> None:
        self.memory = memory
        self.exits = Counter()
        self.exit_cycles = Counter()
        self.latency = Histogram()

    def attach(self, kernel: Kernel) -> None:
        """Learn whose page faults it hands on."""
        super().attach(kernel)
        self.serves = kernel.serves

    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume]:
        """Hand a page fault to the kernel."""
        yield from self.deliver(vcpu, exit.gva, exit.code)
        return Resume.RETRY

    def served(self, cpu: int) -> tuple[Any, ...]:
        """Return what compiled code needs to handle page faults, and finds no tables in that it would have to fill."""
        return _UNBACKED, IDENTITY, self.kernel.frames.frames, _NO_POOL
