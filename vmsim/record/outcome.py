"""What a simulation leaves behind: plain numbers, before any table is made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.record.messages import MessageLog

__all__ = ["DirtyRound", "Ending", "Outcome", "Transfer", "VmOutcome"]


@dataclass(slots=True)
class VmOutcome:
    """One VM's figures, its warm-up already subtracted. All times are cycles of the host's TSC.

    Attributes
    ----------
    counters : dict of str to int
        By the lower-case names of `machine.layout.Count`: accesses, writes, l1_tlb_misses, …
    refs : int64[6, 6, 5]
        Walk references by guest level, nested level and `machine.caches.Served`. Guest level 0 is the data page;
        nested level 0 the guest's own entry.
    pwc : int64[2, 6, 2]
        Page walk cache look-ups by dimension (guest, nested), level of the entry, and miss or hit.
    data : int64[4]
        Data references by `Served`, where data goes through the caches.
    cycles : dict of str to int
        Where the time went: compute, data, l2_tlb, walk_guest, walk_nested, guest_fault, exit, and the waits by
        cause: pool_wait, host_wait, pcpu_wait, io_wait. They sum to `finish - start`.
    first_touch : dict of str to int
        Of `cycles`, by the same causes, what first touches took: the guest kernel's handling of faults on pages that
        are not mapped, exits that back a frame, and those that hand such faults to the guest or trap its stores to
        page tables meanwhile, and the waits for memory in all of these. A fill of a shadow table is none.
    exits : dict of str to tuple of int
        (count, cycles) by reason, as kvm_stat shows them.
    waits : dict of str to int
        How often the vCPU waited, by cause (the cycles are in `cycles`).
    fault_latency : dict of int to int
        How many faults that left the guest took that many cycles, waiting included.
    memory : dict of str to int
        Frames at the end by kind: guest (backing guest memory), table (nested or native tables), pool.
    figures : dict of str to int
        What a monitor counts besides its exits: shadow_filled, software_tlb_hits, splits, …
    dirty : list of DirtyRound
        Readings of its dirty log after the warm-up.
    """

    name: str
    index: int
    group: str
    mode: str
    workload: str
    start: int
    finish: int
    finished: bool
    counters: dict[str, int]
    refs: NDArray[np.int64]
    pwc: NDArray[np.int64]
    data: NDArray[np.int64]
    cycles: dict[str, int]
    exits: dict[str, tuple[int, int]]
    waits: dict[str, int]
    fault_latency: dict[int, int]
    guest_faults: int
    memory: dict[str, int] = field(default_factory=dict)
    figures: dict[str, int] = field(default_factory=dict)
    dirty: list[DirtyRound] = field(default_factory=list)
    first_touch: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Pages that changed hands between the host and a monitor's pool; `level` is the pool's afterwards."""

    time: int
    vm: str
    what: str  # grant, spare, return
    pages: int
    level: int
    host_free: int


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


@dataclass(slots=True)
class Outcome:
    """All that a simulation measured."""

    vms: list[VmOutcome]
    transfers: list[Transfer]
    frequency: int
    latency: tuple[int, ...]  # cycles of a reference by Served
    end: int  # the last cycle
    wall_seconds: float  # of the simulation proper: no loading, no compiling
    ending: Ending | None = None
    messages: MessageLog = field(default_factory=MessageLog)
