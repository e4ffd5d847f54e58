"""Time to write to all memory under one lock, by vCPUs (J. Zhang, ARM64: guest performance during dirty logging, 2022).

Each vCPU of an Ampere Altra writes to 2 GiB of its own, whose pages are write-protected: each first write faults, and
the fault is handled with the VM's mmu_lock held, alone before the patches and to read after them. What is simulated is
that queue: vCPUs whose first touches each cost an exit, part of it with `mmu_lock` held (`vm.tdp_mmu`: alone, or to
read). The machine is no x86 and its faults are of another kind; of these only two numbers are left, which are fitted,
as the data's README allows: what a page takes with the lock held, on four vCPUs, and in all, on one vCPU. Two vCPUs are
predicted; eight and more too, for which no row is at hand. Who holds the lock to read waits for cache lines alone: its
own, and that of the address space's lock, which such a fault takes to read as well (arch/arm64/kvm/mmu.c,
`user_mem_abort`), by `lock_queue.ALTRA_LINE`, which is measured elsewhere.

A 512th of the pages is simulated; each takes the same.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import Final

from vmsim.validation.lock_queue import ALTRA_LINE, HERTZ, page_cycles
from vmsim.validation.report import Claim, Fit, Kind, Report
from vmsim.workloads.stream import PAGE

__all__ = ["PAGES", "fitted", "measured", "microseconds", "milliseconds", "predict"]

_BAND: Final = 0.1
PAGES: Final = (2 << 30) // PAGE  # of each vCPU
_FAR: Final = (8, 16, 32, 64)  # vCPUs of which no row is at hand
_FILE: Final = "arm64_dirty_log22.csv"


def measured() -> dict[tuple[str, int], float]:
    """Return the published ms by lock (alone, read) and vCPUs."""
    text = files("vmsim.validation").joinpath(f"data/{_FILE}").read_text(encoding="utf-8")
    columns = {"alone": "dirty_memory_ms_exclusive_lock", "read": "dirty_memory_ms_read_lock"}
    return {
        (lock, int(row["vcpus"])): float(row[column])
        for row in csv.DictReader(text.splitlines())
        for lock, column in columns.items()
    }


def milliseconds(lock: str, vcpus: int, held: int, apart: int) -> float:
    """Return how long so many vCPUs write to all of their pages; the parameters are those of `page_cycles`."""
    return 1000 * page_cycles(lock, vcpus, held, apart, line=ALTRA_LINE) * PAGES / HERTZ


@cache
def fitted() -> tuple[int, int]:
    """Return the cycles of a page with the lock held, and besides, that one and four vCPUs have."""
    one, four = (measured()["alone", vcpus] * 1e-3 * HERTZ / PAGES for vcpus in (1, 4))
    held = round(four / 4)  # the lock is never free
    apart = round(one) - held
    for _ in range(4):  # what the simulated kernel and hardware do besides is taken off
        apart -= round(page_cycles("alone", 1, held, apart) - one)
        held -= round((page_cycles("alone", 4, held, apart, line=ALTRA_LINE) - four) / 4)
    return held, apart


def microseconds(cycles: int) -> float:
    """Return cycles of the machine as microseconds."""
    return cycles * 1e6 / HERTZ


def predict() -> Report:
    """Predict two vCPUs, and more."""
    table = measured()
    held, apart = fitted()
    times = {vcpus: milliseconds("alone", vcpus, held, apart) for vcpus in (1, 2, 4, *_FAR)}
    one = table["read", 1] * 1e-3 * HERTZ / PAGES
    start = round(one) - held
    start -= round(page_cycles("read", 1, held, start) - one)
    reads = {vcpus: milliseconds("read", vcpus, held, start) for vcpus in (1, 2, 4, *_FAR)}
    kinds: dict[tuple[str, int], Kind] = {("alone", 1): "fit", ("alone", 4): "fit", ("read", 1): "fit"}
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
            "simulated": "a 512th of the pages; a first touch under EPT stands for the write fault",
            "contentions": "are not compared: the count is of tries of a spinning lock",
        },
        curves=curves,
        axes=("vCPUs", "ms for 2 GiB each"),
    )
