"""What every monitor does unless its mode has it do something else: nothing, mostly."""

# ruff: noqa: B027  (what most modes need not do is empty on purpose; `handle` alone makes a mode)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Ledger
from vmsim.contracts import Exit, Kernel, Mmu, Resume, Steps, Vcpu, Words, Worker
from vmsim.contracts.commit import Collected
from vmsim.contracts.faults import KIND_BITS, FaultTimes
from vmsim.frames.records import State
from vmsim.machine.formats import FRAME
from vmsim.machine.memory import entry_at, read_entry, width_of
from vmsim.monitor.mmu_lock import MmuLock
from vmsim.record.log import Log
from vmsim.record.outcome import DirtyRound, round_log
from vmsim.tables.backing import IDENTITY, UNBACKED
from vmsim.tables.edit import translate

__all__ = ["UNFINISHED", "BaseMonitor", "table_on_way"]

UNFINISHED = "UNFINISHED"  # the reason, in the table of exits, of one that was under way when a run ended early


class BaseMonitor(ABC):
    """A monitor that has no tables, no timers and no figures of its own; `vmsim.contracts.Monitor` says what each is.

    Attributes
    ----------
    memory : int64[:]
        Host-physical memory.
    kernel : Kernel
        Whose page faults it handles, from `attach` on.
    reasons : tuple of str
        Of the exits that compiled code handles, in the order of their numbers there.
    first_frames : int
        Host frames that it must have, besides the root of the tables that back guest memory, before a guest can boot.
    """

    first_frames = 0
    pins_pages = True
    nested_rights = False
    compiled = True
    reloads = False
    table_order = 0
    names_entries = True
    reasons: tuple[str, ...] = ()

    memory: Words
    backing: Words = IDENTITY
    lock = MmuLock()  # that nobody waits for
    kernel: Kernel
    deliver: Callable[[Any, int, int], Steps[None]]
    exits: Counter[str]
    exit_cycles: Counter[str]
    latency: FaultTimes

    def attach(self, kernel: Kernel) -> None:
        """Learn whose page faults it handles."""
        self.kernel = kernel
        self.deliver = kernel.page_fault
        kernel.times = self.latency

    def plain_mmu(self, hardware: Mmu) -> Mmu:
        """Return how the guest's kernel reaches its tables, by the `hardware`'s MMU or in its place."""
        return hardware

    def guest_mmu(self, hardware: Mmu) -> Mmu:
        """Return the same where the kernel's accesses are not translated."""
        return self.plain_mmu(hardware)

    def prepare(self, take: Callable[[int, State], list[int]]) -> None:
        """Back all guest memory before the clock starts."""

    def forget(self) -> None:
        """Forget the exits so far, where they were made before the clock started."""

    def create(self, vcpu: Vcpu) -> Steps[None]:
        """Take from the pool what no guest can start without."""
        yield from ()

    def begin(self, vcpu: Any) -> Steps[None]:
        """Begin what it does besides exits."""
        yield from ()

    def finish(self, vcpu: Vcpu) -> None:
        """End that."""

    @abstractmethod
    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume]:
        """Handle an exit: that makes a mode what it is."""

    def kernel_fault(self, vcpu: Vcpu, gva: int, gfn: int, code: int, write: bool) -> Steps[bool]:
        """Expect none: the hardware walks the guest's own tables, which map all of its memory for its kernel."""
        raise AssertionError(f"the guest's own map of its memory has no page for {gva:#x} (error code {code:#x})")

    def touch(self, vcpu: Vcpu, gfn: int, order: int) -> Steps[None]:
        """Find every frame backed."""
        yield from ()

    def back_one(self, vcpu: Vcpu, gfn: int) -> Steps[int]:
        """Find a frame backed."""
        yield from ()
        return 0

    def pauses(self, accesses: int) -> list[tuple[int, Callable[[Any], Steps[None]]]]:
        """Return nothing: no access of a workload is a moment of its own."""
        return []

    def held_by_host(self, at: int, cycles: int, times: int, apart: int) -> int:
        """Have the host change its entries, with the lock held; return how long it waits for that."""
        return self.lock.hold_each(at, cycles, times, apart=apart)

    def system_call(self, vcpu: Vcpu, name: str, pid: int) -> None:
        """Pay nothing: a system call does not leave the guest."""

    def io_exit(self, vcpu: Vcpu) -> None:
        """Pay nothing: the kernel reaches the device itself."""

    def frames_of(self, gfns: Words) -> Words:
        """Return the frames themselves: nothing lies between them and the host's."""
        return gfns

    def fast(self, vcpu: Vcpu) -> tuple[Any, ...] | None:
        """Return None: no compiled code handles its exits."""
        return None

    def brought(self) -> None:
        """Do nothing: no compiled code brings pages back."""

    def collect(self, vcpu: Vcpu, done: Collected) -> None:
        """Count the exits that compiled code has handled, their cycles, and how long faults took."""
        if cycles := sum(done.cycles):
            vcpu.owe("exit", cycles - done.first)
            with vcpu.first():
                vcpu.owe("exit", done.first)
        self.count(vcpu, done)

    def count(self, vcpu: Vcpu, done: Collected) -> None:
        """Count what was on a bill, whose cycles the vCPU owes already."""
        for reason, count, spent in zip(self.reasons, done.exits, done.cycles, strict=False):
            if count:
                self.exits[reason] += count
                self.exit_cycles[reason] += spent
        if done.kind > vcpu.kind:
            vcpu.kind = done.kind  # of a fault that is not over
        for latency, times in done.latencies:
            self.latency.add(latency >> KIND_BITS, times, latency & (1 << KIND_BITS) - 1)

    @property
    def workers(self) -> Sequence[Worker]:
        """None."""
        return ()

    @property
    def unfinished_cycles(self) -> int:
        """Cycles of an exit that is not over."""
        return 0

    @property
    def rounds(self) -> Log[DirtyRound]:
        """No readings: nothing is logged."""
        return round_log()

    def register(self, ledger: Ledger) -> None:
        """Say what it counts: its exits by reason, their cycles, and how long faults took.

        An exit that was under way when the run ended is none yet, and its cycles have a reason of their own.
        """
        ledger.counters("exits", lambda: _by_name(self.exits, self.unfinished_cycles and {UNFINISHED: 0}))
        ledger.counters(
            "exit_cycles",
            lambda: _by_name(self.exit_cycles, self.unfinished_cycles and {UNFINISHED: self.unfinished_cycles}),
        )
        ledger.histogram("fault_latency", self.latency)
        ledger.kinds(self.latency.kinds)
        self.lock.register(ledger)

    def rehearse(self) -> None:
        """Compile nothing more."""

    def walked_root(self, cpu: int) -> int:
        """The root of the kernel's tables."""
        return self.kernel.root_of(cpu)

    @property
    def memory_root(self) -> tuple[int, int]:
        """Nothing lies between gpas and hpas."""
        return 0, 0

    @property
    def host_slot(self) -> int | None:
        """None: all of the nested tables are the VM's."""
        return None

    @property
    def frames_held(self) -> int:
        """No frames that `memory_root`'s tables do not map."""
        return 0

    @property
    def late_flags(self) -> bool:
        """No: the hardware sets the flags of the guest's own entries."""
        return False

    def table_moved(self, old: int, new: int) -> None:
        """Do nothing: it finds its tables by their entries."""

    def stale(self, cpu: int) -> bool:
        """No: the hardware walks the guest's own tables."""
        return False

    def may_enter(self, vcpu: Vcpu) -> bool:
        """Yes: what CR3 leads to is the guest's to say."""
        return True

    def reload(self, vcpu: Vcpu) -> Steps[None]:
        """Do nothing."""
        yield from ()

    def problems(self, frames: NDArray[Any]) -> Iterable[str]:
        """Yield nothing: it has no tables besides those that are checked of every VM."""
        return ()

    def table_on_way(self, table: int, level: int, wanted: int, gva: int) -> int:
        """Return the hpa of a table of the guest's own, which the hardware walks and finds by its gpa."""
        return table_on_way(self.memory, self.memory_root, table, level, wanted, gva)


def _by_name(counts: Mapping[str, int], more: Mapping[str, int] | int) -> dict[str, int]:
    """Return counts, and more if there are any, in the order of their names, whoever has counted first."""
    return dict(sorted({**counts, **(more or {})}.items()))  # type: ignore[dict-item]


def table_on_way(
    memory: NDArray[np.int64], nested: tuple[int, int], table: int, level: int, wanted: int, address: int
) -> int:
    """Return the hpa of the table of level `wanted` on the way to `address`, or UNBACKED.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    nested : tuple of int
        Root and levels of the tables by which the tables on the way are found; (0, 0) if they are named by hpa.
    table, level : int
        Where the walk begins: a root, and its level.
    """
    width = width_of(level)
    while level > wanted:
        place = int(translate(memory, *nested, int(entry_at(table, address, level, width))))
        if place == UNBACKED:
            return UNBACKED
        table = int(read_entry(memory, place, width)) & FRAME
        level -= 1
    return int(translate(memory, *nested, table))
