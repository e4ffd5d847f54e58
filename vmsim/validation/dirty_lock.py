"""Time to write to all memory under one lock, by vCPUs (J. Zhang, ARM64: guest performance during dirty logging, 2022).

Each vCPU of an Ampere Altra writes to 2 GiB of its own, whose pages are write-protected: each first write faults, and
the fault is handled with the VM's mmu_lock held, alone before the patches and to read after them. What is simulated is
that queue: vCPUs whose first touches each cost an exit, part of it with `mmu_lock` held (`vm.tdp_mmu`: alone, or to
read). The machine is no x86 and its faults are of another kind; of these only two numbers are left, which are fitted,
as the data's README allows: what a page takes with the lock held, on four vCPUs, and in all, on one vCPU. Two vCPUs are
predicted; eight and more too, for which no row is at hand. What is predicted of the lock that is held to read is that
nobody waits.

A 512th of the pages is simulated; each takes the same.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np

from vmsim.engine.simulation import Simulation
from vmsim.scenario import Scenario
from vmsim.validation.report import Claim, Fit, Report
from vmsim.validation.report import Kind as ClaimKind
from vmsim.workloads import Chunk, Kind
from vmsim.workloads.stream import PAGE, Regions

__all__ = ["PAGES", "Writers", "measured", "microseconds", "milliseconds", "predict"]

_BASE: Final = 0x10_0000_0000
_HERTZ: Final = 3_000_000_000
_SCALE: Final = 512
_BAND: Final = 0.1
PAGES: Final = (2 << 30) // PAGE  # of each vCPU
_FAR: Final = (8, 16, 32, 64)  # vCPUs of which no row is at hand
_FILE: Final = "arm64_dirty_log22.csv"
_NONE: Final = ("violation_walk", "violation_pool", "violation_rmap", "violation_resume")
_KERNEL: Final = ("guest_fault", "fault_delivery", "zero_page", "table_page", "host_fault", "host_zero", "vm_exit")


def measured() -> dict[tuple[str, int], float]:
    """Return the published ms by lock (alone, read) and vCPUs."""
    text = files("vmsim.validation").joinpath(f"data/{_FILE}").read_text(encoding="utf-8")
    columns = {"alone": "dirty_memory_ms_exclusive_lock", "read": "dirty_memory_ms_read_lock"}
    return {
        (lock, int(row["vcpus"])): float(row[column])
        for row in csv.DictReader(text.splitlines())
        for lock, column in columns.items()
    }


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
def milliseconds(lock: str, vcpus: int, held: int, apart: int, pages: int = PAGES // _SCALE) -> float:
    """Return how long so many vCPUs write, scaled to all of their pages.

    Parameters
    ----------
    lock : str
        alone, or read.
    vcpus : int
    held, apart : int
        Cycles of a page with the lock held, and besides.
    pages : int, optional
        Simulated, of each vCPU.
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
            "frequency": _HERTZ,
            "cost": {"violation_entry": held} | dict.fromkeys((*_NONE, *_KERNEL), 0),
        },
    }
    scenario = Scenario.from_tables({"host": host, "vm": [vm]})
    only = Simulation(scenario, streams=[Writers(vcpus, pages)]).run().vms[0]
    return 1000 * (only.finish - only.start) / _HERTZ * PAGES / pages


def _fit() -> tuple[int, int]:
    """Return the cycles of a page with the lock held, and besides, that one and four vCPUs have."""
    table = measured()
    one, four = (round(table["alone", vcpus] * 1e-3 * _HERTZ / PAGES) for vcpus in (1, 4))
    held = round(four / 4)  # the lock is never free
    apart = one - held
    for _ in range(4):  # what the simulated kernel and hardware do besides is taken off
        apart -= round((milliseconds("alone", 1, held, apart) - table["alone", 1]) * 1e-3 * _HERTZ / PAGES)
        held -= round((milliseconds("alone", 4, held, apart) - table["alone", 4]) * 1e-3 * _HERTZ / PAGES / 4)
    return held, apart


def microseconds(cycles: int) -> float:
    """Return cycles of the machine as microseconds."""
    return cycles * 1e6 / _HERTZ


def predict() -> Report:
    """Predict two vCPUs, and more."""
    table = measured()
    held, apart = _fit()
    times = {vcpus: milliseconds("alone", vcpus, held, apart) for vcpus in (1, 2, 4, *_FAR)}
    start = round(table["read", 1] * 1e-3 * _HERTZ / PAGES) - held
    start -= round((milliseconds("read", 1, held, start) - table["read", 1]) * 1e-3 * _HERTZ / PAGES)
    reads = {vcpus: milliseconds("read", vcpus, held, start) for vcpus in (1, 2, 4)}
    kinds: dict[tuple[str, int], ClaimKind] = {("alone", 1): "fit", ("alone", 4): "fit", ("read", 1): "fit"}
    claims = []
    for lock, key, row in (("alone", "alone", times), ("to read", "read", reads)):
        for vcpus, time in row.items():
            there, kind = table.get((key, vcpus)), kinds.get((key, vcpus), "prediction")
            note, plural = "" if there else "no row is at hand", "s" if vcpus > 1 else ""
            claims.append(
                Claim(f"lock held {lock}, {vcpus} vCPU{plural}, ms", time, there, _BAND, note=note, kind=kind)
            )
    curves = [
        {"line": f"held {lock}", "x": vcpus, "predicted": time, "measured": table.get((key, vcpus))}
        for lock, key, row in (("alone", "alone", times), ("to read", "read", reads))
        for vcpus, time in row.items()
    ]
    return Report(
        title="Writing to 2 GiB of write-protected memory a vCPU, under one mmu_lock",
        source="J. Zhang, [PATCH 0/3] ARM64: Guest performance improvement during dirty, kvm list, January 2022",
        fitted={
            "a page with the lock held": Fit(
                microseconds(held), "us", _FILE, "four vCPUs, the lock held alone", f"{held} cycles of 3 GHz"
            ),
            "a page besides": Fit(microseconds(apart), "us", _FILE, "one vCPU, the lock held alone"),
            "a page besides, after the patches": Fit(microseconds(start), "us", _FILE, "one vCPU, held to read"),
        },
        claims=tuple(claims),
        details={
            "simulated": f"a {_SCALE}th of the pages; a first touch under EPT stands for the write fault",
            "contentions": "are not compared: the count is of tries of a spinning lock",
        },
        curves=curves,
        axes=("vCPUs", "ms for 2 GiB each"),
    )
