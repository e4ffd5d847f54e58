"""What all monitors have in common whose own tables the hardware walks, in place of the guest's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Vcpu
from vmsim.machine.formats import CODE_PRESENT
from vmsim.monitor.tdp.monitor import Tdp

__all__ = ["NONE", "SoftwareMonitor"]

NONE = -1  # the status where compiled code has left no fault over


class SoftwareMonitor(ABC):
    """A monitor that gets every page fault first, and keeps tables from gva to hpa; the guest's `Mmu` as well.

    Attributes
    ----------
    first_frames : int
        Host frames that it must have before a guest can boot.
    host_tables : Tdp
        gpa to hpa: tables that the hardware does not walk for the guest's accesses, unless the mode says so.
    serves : bool
        Compiled code may handle exits for which nothing has to wait.
    deliver : callable or None
        The guest kernel's handler of page faults: a vCPU, a gva and an error code.
    exits, exit_cycles : Counter
        By reason.
    latency : Counter
        How many faults took how many cycles.
    """

    first_frames: ClassVar[int]
    host_tables: Tdp
    serves: bool
    deliver: Callable[[Vcpu, int, int], Steps[None]] | None
    exits: Counter[str]
    exit_cycles: Counter[str]
    latency: Counter[int]
    _spent: int  # cycles of the exit under way

    @property
    def memory_root(self) -> tuple[int, int]:
        """Root and levels of the host's tables, by which --check finds guest memory."""
        return self.host_tables.root, self.host_tables.levels

    @property
    def backing(self) -> NDArray[np.int64]:
        """Where guest memory lies."""
        return self.host_tables.backing

    @property
    @abstractmethod
    def frames_held(self) -> int:
        """Host frames that are its own tables, or at hand to become some."""

    @property
    def unfinished_cycles(self) -> int:
        """Cycles of an exit that is not over, and so in none of the exits' figures yet."""
        return self._spent

    @property
    @abstractmethod
    def stale(self) -> bool:
        """Whether the guest has taken away what a TLB may still hold, and has not invalidated it yet."""

    @abstractmethod
    def provide(self, frames: list[int]) -> None:
        """Take `first_frames` of the host's frames, before the clock starts."""

    @abstractmethod
    def page_fault(
        self, vcpu: Vcpu, gva: int, code: int, times: int, status: int = NONE, value: int = 0
    ) -> Steps[bool]:
        """Handle a page fault of the hardware; return whether the accesses, `times` in a row, have been made."""

    @abstractmethod
    def io_exit(self, vcpu: Vcpu) -> None:
        """Leave the guest because it has told a device to work."""

    @abstractmethod
    def figures(self) -> dict[str, int]:
        """Return what has been counted besides exits."""

    @abstractmethod
    def rehearse(self) -> None:
        """Compile, or load from the cache, the kernels that a short run does not need."""

    def populate(self) -> None:
        """Back all guest memory before the clock starts."""
        self.host_tables.populate()

    def _hand_over(self, vcpu: Vcpu, reason: str, code: int) -> None:
        """End the exit under way, which hands a page fault with its error code to the guest's kernel."""
        if not code & CODE_PRESENT:
            vcpu.first_touch["exit"] += self._spent
        self._count(reason)

    @abstractmethod
    def _count(self, reason: str, count: int = 1) -> None:
        """End exits of a kind."""

    def frames_of(self, gfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the host's frames that hold guest frames, int64[n]; each must be backed."""
        return self.host_tables.frames_of(gfns)

    def forget(self) -> None:
        """Forget the exits so far: they were made before the clock started."""
        self.exits.clear()
        self.exit_cycles.clear()
