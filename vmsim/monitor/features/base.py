"""What every feature of a hardware-mode monitor is: a handler of some exits, and of what happens beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Ledger
from vmsim.contracts import Exit, Host, LiveVm, MemorySlot, Mmu, Pool, Resume, Steps, Vcpu, Words
from vmsim.machine.formats import NestedFormat
from vmsim.monitor.mmu_lock import MmuLock
from vmsim.record.log import Log
from vmsim.record.outcome import DirtyRound
from vmsim.scenario.cpu import Cost

__all__ = ["Feature", "Monitored", "Nested"]


class Monitored(Protocol):
    """The monitor that a feature is of, whatever its paging mode."""

    compiled: bool
    costs: Cost
    lock: MmuLock
    exits: Any
    exit_cycles: Any
    latency: Any

    def exited(self, vcpu: Vcpu) -> None:
        """Forget what a VM exit makes the processor forget."""


class Nested(Monitored, Protocol):
    """The monitor that a feature is of: nested tables that hardware walks.

    Attributes
    ----------
    large : int
        Bits of an entry that maps a large page, but for LARGE.
    withheld : int
        Bits that entries of small pages do not have as they are made of a large one.
    each_table : int
        Cycles for a page that becomes a table of its own.
    """

    memory: Words
    backing: Words
    registers: NDArray[Any]
    host: Host
    pool: Pool
    each_table: int
    slot: MemorySlot
    form: NestedFormat
    pages: int
    levels: int
    root: int
    page_order: int
    large: int
    withheld: int

    def take(self, vcpu: Vcpu, count: int) -> Steps[list[int]]:
        """Take pages from the pool."""
        ...

    def split(self, gpa: int, table: int, *, alone: bool = False) -> None:
        """Map by a table of smaller pages, in frame `table`, what one large page maps around `gpa`."""

    def mapping_cycles(self, tables: int, order: int) -> int:
        """Return the cycles from the pages taken to the entry written, where tables or a large page were made."""
        ...

    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume]:
        """Handle an exit, by whichever feature or itself."""
        ...

    def watch(self, dirty: NDArray[np.bool_], reason: str, cycles: int) -> None:
        """Have compiled code note what it makes writable while `log_writes` is on."""

    def log_writes(self, *, on: bool) -> None:
        """Begin or end to have it noted."""


class Feature:
    """One of any number of handlers around a monitor's own, and a worker where it has something to do now and then.

    Attributes
    ----------
    tdp : Monitored
        Whose exits it handles.
    over : bool
        The VM's workload is.
    """

    over = False

    def __init__(self, tdp: Monitored, *reasons: str) -> None:
        self.tdp = tdp
        self.costs = tdp.costs
        for reason in reasons:
            tdp.exits[reason] = tdp.exit_cycles[reason] = 0

    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume | None]:
        """Handle an exit; None: it is another's."""
        yield from ()
        return None

    def back(self, vcpu: Vcpu, gpa: int, code: int) -> Steps[int | None]:
        """Map the page of `gpa` in a way of its own; return the cycles, or None: it is another's."""
        yield from ()
        return None

    def note(self, gfn: int) -> None:
        """Note that a guest frame has just been backed."""

    def unmaps(self, gfn: int) -> bool:
        """Whether it has taken away the entry of a guest frame that has a host frame."""
        return False

    def guest_mmu(self, hardware: Mmu) -> Mmu:
        """Return how the guest's kernel reaches its tables."""
        return hardware

    def begin(self, vcpu: Vcpu) -> Steps[None]:
        """Begin: the VM's kernel has booted."""
        yield from ()

    def run(self, vm: LiveVm) -> Steps[None]:
        """Do nothing by timers of its own."""
        yield from ()

    def finish(self, vcpu: Vcpu) -> None:
        """End: the VM's workload is over."""
        self.over = True

    @property
    def rounds(self) -> Log[DirtyRound] | None:
        """Readings of its log, if it has one."""
        return None

    def register(self, ledger: Ledger) -> None:
        """Say what it counts besides the exits."""

    def _exit(self, vcpu: Vcpu, reason: str, cycles: int) -> None:
        self.tdp.exited(vcpu)
        self.tdp.exits[reason] += 1
        self._pay(vcpu, reason, self.costs.vm_exit + cycles + self.costs.violation_resume)

    def _kick(self, vcpus: Sequence[Vcpu], reason: str) -> int:
        """Have every vCPU that runs leave the guest, and come back; return the cycles until all have left.

        Others forget what they are to forget when they next enter (virt/kvm/kvm_main.c, kvm_make_all_cpus_request).
        """

        def paid(vcpu: Vcpu, cycles: int) -> None:
            self.tdp.exits[reason] += 1
            self.tdp.exit_cycles[reason] += cycles

        return vcpus[0].kick(vcpus, paid)

    def _pay(self, vcpu: Vcpu, reason: str, cycles: int) -> None:
        vcpu.owe("exit", cycles)
        self.tdp.exit_cycles[reason] += cycles
