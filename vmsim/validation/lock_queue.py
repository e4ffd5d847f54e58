"""VCPUs that queue for one lock: each writes once to pages of its own, and each write is a fault that holds it.

What is simulated is first touches under EPT whose exits hold `mmu_lock`: alone, or to read, as `vm.tdp_mmu` has it.
All else that a fault costs is left out, so that a page takes two numbers: what it takes with the lock held, and
besides; and, of several vCPUs, what it takes to have cache lines of locks from one another. Studies of faults that this
CPU or kernel does not take have their queue from here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np

from vmsim.engine.simulation import Simulation
from vmsim.scenario import Scenario
from vmsim.workloads import Chunk, Kind
from vmsim.workloads.stream import PAGE, Regions

__all__ = ["ALTRA_LINE", "HERTZ", "Writers", "page_cycles"]

HERTZ: Final = 3_000_000_000
ALTRA_LINE: Final = round(47e-9 * HERTZ)
"""Cycles until a core has a line that another has written to: 47 ns, by compare-and-swap between the cores of a
Graviton2, which are those of the Ampere Altra, Neoverse N1 (nviennot/core-to-core-latency)."""
_BASE: Final = 0x10_0000_0000
_PAGES: Final = 1024  # simulated, of each vCPU
_NONE: Final = ("violation_walk", "violation_pool", "violation_rmap", "violation_resume")
_KERNEL: Final = ("guest_fault", "fault_delivery", "zero_page", "table_page", "host_fault", "host_zero", "vm_exit")


@dataclass
class Writers:
    """Threads that each write once to every page of a part of their own."""

    threads: int
    pages: int
    name: str = "writers"

    @property
    def accesses(self) -> int:
        """Writes of all threads."""
        return self.threads * self.pages

    def footprint(self) -> Regions:
        """Return one region with a part for each thread."""
        return np.array([_BASE], np.int64), np.array([self.threads * self.pages * PAGE], np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read a thread's writes."""
        first = thread * self.pages
        address = _BASE + PAGE * np.arange(first, first + self.pages, dtype=np.int64)
        yield Chunk(address, np.ones(self.pages, np.int32), np.full(self.pages, Kind.WRITE, np.uint8), ())

    def digest(self) -> str:
        """Return nothing: it is no workload of a scenario."""
        return ""


@cache
def page_cycles(lock: str, vcpus: int, held: int, apart: int, pages: int = _PAGES, *, line: int = 0) -> float:
    """Return the cycles that each of so many vCPUs takes for a page.

    Parameters
    ----------
    lock : str
        alone, or read.
    vcpus : int
    held, apart : int
        Cycles of a page with the lock held, and besides.
    pages : int, optional
        Simulated, of each vCPU.
    line : int, optional
        Cycles until a vCPU has the cache line of a lock from another: `cost.line_transfer`.
    """
    size = vcpus * pages * PAGE
    vm: dict[str, Any] = {
        "name": "vm",
        "memory": size + size // 4 + (64 << 20),
        "mode": "ept",
        "vcpus": vcpus,
        "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1, "compute": apart},
    }
    if vcpus > 1:
        vm["tdp_mmu"] = lock == "read"
    host = {
        "cpu": "skylake-x",
        "memory": 2 * size + (256 << 20),
        "cores": vcpus,
        "pool": {"supply": "fault"},
        "horizon": "300ns",  # a vCPU that runs ahead takes the lock before its turn
        "cpu_override": {
            "frequency": HERTZ,
            "cost": {"violation_entry": held, "line_transfer": line} | dict.fromkeys((*_NONE, *_KERNEL), 0),
        },
    }
    scenario = Scenario.from_tables({"host": host, "vm": [vm]})
    only = Simulation(scenario, streams=[Writers(vcpus, pages)]).run().vms[0]
    return (only.finish - only.start) / pages
