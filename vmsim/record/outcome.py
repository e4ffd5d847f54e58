"""What a simulation leaves behind: plain numbers, before any table is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Reading, Row
from vmsim.record.log import NOTHING, Extent, Log
from vmsim.record.messages import MessageLog
from vmsim.record.timeline import Span

__all__ = [
    "DirtyRound",
    "Ending",
    "Outcome",
    "Sample",
    "SampleLog",
    "Transfer",
    "VmOutcome",
    "round_log",
    "transfer_log",
]


@dataclass(slots=True)
class VmOutcome:
    """One VM's figures, its warm-up already subtracted. All times are cycles of the host's TSC.

    Attributes
    ----------
    figures : Reading
        All that its components have counted.
    memory : dict of str to int
        Frames at the end by kind: guest (backing guest memory), table (nested or native tables), pool.
    dirty : list of DirtyRound
        Readings of its dirty log after the warm-up.
    dirty_log : Extent
        Of how many readings they are.
    """

    name: str
    index: int
    group: str
    mode: str
    workload: str
    start: int
    finish: int
    finished: bool
    figures: Reading
    memory: dict[str, int] = field(default_factory=dict)
    dirty: list[DirtyRound] = field(default_factory=list)
    dirty_log: Extent = NOTHING

    @property
    def counters(self) -> dict[str, int]:
        """What compiled code counts, by the lower-case names of `machine.layout.Count`: accesses, writes and so on."""
        return self.figures.named("processor")

    @property
    def refs(self) -> NDArray[np.int64]:
        """Walk references by guest level, nested level and `machine.caches.Served`, int64[6, 6, 5].

        Guest level 0 is the data page; nested level 0 the guest's own entry.
        """
        return self.figures.array("walk_references")

    @property
    def pwc(self) -> NDArray[np.int64]:
        """Page walk cache look-ups by dimension (guest, nested), level of the entry, miss or hit: int64[2, 6, 2]."""
        return self.figures.array("pwc")

    @property
    def data(self) -> NDArray[np.int64]:
        """Data references by `Served`, int64[4], where data goes through the caches."""
        return self.figures.array("data")

    @property
    def cycles(self) -> dict[str, int]:
        """Where the time went; they sum to `finish - start`.

        Causes are compute, data, l2_tlb, walk_guest, walk_nested, guest_fault, exit, switch, and the waits: pool_wait,
        host_wait, pcpu_wait, io_wait.
        """
        return self.figures.named("cycles")

    @property
    def first_touch(self) -> dict[str, int]:
        """Of `cycles`, by the causes of memory management, what first touches took.

        They are the guest kernel's handling of faults on pages that are not mapped, exits that back a frame, and those
        that hand such faults to the guest or trap its stores to page tables meanwhile, and the waits for memory in all
        of these. A fill of a shadow table is none.
        """
        return self.figures.named("first_touch")

    @property
    def exits(self) -> dict[str, tuple[int, int]]:
        """(count, cycles) by reason, as kvm_stat shows them."""
        cycles = self.figures.named("exit_cycles")
        return {reason: (count, cycles.get(reason, 0)) for reason, count in self.figures.named("exits").items()}

    @property
    def waits(self) -> dict[str, int]:
        """How often the vCPU waited, by cause (the cycles are in `cycles`)."""
        return self.figures.named("waits")

    @property
    def fault_latency(self) -> dict[int, int]:
        """How many faults that left the guest took how many cycles, waits included, within 2**-9 (`Histogram`)."""
        return self.figures.histogram("fault_latency").means()

    @property
    def fault_kinds(self) -> dict[str, dict[int, int]]:
        """The same by kind, and of page faults of the guest's kernel; without kinds that there were none of."""
        return {kind: counts for kind, each in self.figures.kinds.items() if (counts := each.means())}

    @property
    def guest_faults(self) -> int:
        """Page faults that the guest's kernel handled."""
        return self.figures.named("guest").get("faults", 0)

    def rows(self) -> Iterator[Row]:
        """Yield every figure of the VM."""
        yield from self.figures.rows()
        for kind, frames in self.memory.items():
            yield Row("frames", kind, frames)
        if self.dirty_log.noted:
            for name, value in self.dirty_log._asdict().items():
                yield Row("dirty", name, value)


class Transfer(NamedTuple):
    """Pages that changed hands between the host and a monitor's pool; `level` is the pool's afterwards."""

    time: int
    vm: str
    what: str  # grant, spare, return
    pages: int
    level: int
    host_free: int


class Sample(NamedTuple):
    """The memory of a VM, or of the whole host, as it was at some time: pages and frames of 4 KiB."""

    time: int
    resident: int
    shared: int
    swapped: int
    balloon: int
    guest_free: int
    free_resident: int
    tables: int
    pool: int
    host_free: int
    some: int  # cycles since the sample before
    full: int
    guest_huge: int = 0  # pages that the guest maps by large ones, the host, and both
    host_huge: int = 0
    aligned: int = 0


class SampleLog(Log[Sample]):
    """Samples as a `Log` has them, and their means, to which those count too that it has left out."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__(Sample, len(Sample._fields), limit=limit)
        self._sums = [0] * len(Sample._fields)

    def append(self, row: Sample) -> None:
        """Note a sample."""
        super().append(row)
        self._sums = [total + value for total, value in zip(self._sums, row, strict=True)]

    def figures(self) -> Iterator[tuple[str, int]]:
        """Yield how much of it is there, and the mean of each of its columns but the time, rounded down."""
        yield from self.extent._asdict().items()
        for name, total in zip(Sample._fields[1:], self._sums[1:], strict=True):
            yield f"mean_{name}", total // max(1, self.noted)


class DirtyRound(NamedTuple):
    """One reading of a VM's dirty log.

    Attributes
    ----------
    time : int
        The cycle at which it was over.
    pages : int
        Pages that it named.
    cycles : int
        Cycles that the host spent on it.
    late : int
        Cycles from when it was due to when it began: the VM was in an exit or in its kernel, or had made no access
        since the reading before.
    """

    time: int
    pages: int
    cycles: int
    late: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a simulation stopped before its VMs were done: who asked for what, when, and what there was."""

    time: int
    vm: str
    asked: str
    message: str


def round_log(limit: int | None = None) -> Log[DirtyRound]:
    """Return a log of readings of a dirty log without any."""
    return Log(DirtyRound, len(DirtyRound._fields), limit=limit)


def transfer_log(limit: int | None = None) -> Log[Transfer]:
    """Return a log of transfers without any."""
    return Log(Transfer, len(Transfer._fields), names=(1, 2), limit=limit)


@dataclass(slots=True)
class Outcome:
    """All that a simulation measured."""

    vms: list[VmOutcome]
    transfers: Log[Transfer]
    frequency: int
    latency: tuple[int, ...]  # cycles of a reference by Served
    end: int  # the last cycle
    wall_seconds: float  # of the simulation proper: no loading, no compiling
    ending: Ending | None = None
    messages: MessageLog = field(default_factory=MessageLog)
    samples: dict[str, SampleLog] = field(default_factory=dict)  # by VM; the host's have no name
    timeline: Log[Span] | None = None  # where it was asked for

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Yield every figure with the name of its VM; none of the host's."""
        for name, log in (("pool", self.transfers), ("messages", self.messages)):
            if log.noted:
                for figure, value in log.extent._asdict().items():
                    yield "", Row(name, figure, value)
        for name, samples in self.samples.items():
            for figure, value in samples.figures():
                yield name, Row("memory", figure, value)
        for vm in self.vms:
            for row in vm.rows():
                yield vm.name, row
