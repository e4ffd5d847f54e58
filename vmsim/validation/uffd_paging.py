"""Pages that user space brings in, by vCPUs: told by userfaultfd, or by a fault that leaves KVM (A. Moorthy, 2023).

demand_paging_test: each vCPU reads 64 MiB of shared memory, each page of which is missing in KVM's tables and is put in
by a thread of user space. With userfaultfd a few threads read all faults from one descriptor; with exits each vCPU's
own thread finds out by the return of KVM_RUN. No monitor in user space is simulated, nor what its threads do: of either
way two numbers are left, which are fitted on one vCPU and on four, as the data's README allows. They are what a page
takes while no other vCPU's can be brought in, and besides. More vCPUs are predicted by the queue of `dirty-lock`.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Final

from vmsim.validation.lock_queue import HERTZ, page_cycles
from vmsim.validation.report import Claim, Finding, Fit, Kind, Report

__all__ = ["WAYS", "fitted", "measured", "predict", "rate"]

WAYS: Final = {"userfaultfd": "kpages_per_s_uffd", "exits": "kpages_per_s_fault_exit"}
_FILE: Final = "kvm_uffd_paging23.csv"
_BAND: Final = 0.2
_FITTED: Final = (1, 4)
_VCPUS: Final = (1, 2, 4, 8, 16, 32, 64)


def measured() -> dict[tuple[str, int], float]:
    """Return the published thousands of pages a second by way and vCPUs."""
    text = files("vmsim.validation").joinpath(f"data/{_FILE}").read_text(encoding="utf-8")
    rows = [*csv.DictReader(text.splitlines())]
    return {(way, int(row["vcpus"])): float(row[column]) for row in rows for way, column in WAYS.items()}


def rate(vcpus: int, held: int, apart: int) -> float:
    """Return thousands of pages a second of all vCPUs."""
    return vcpus * HERTZ / page_cycles("alone", vcpus, held, apart) / 1000


def fitted(way: str) -> tuple[int, int]:
    """Return the cycles of a page while no other can be brought in, and besides, that one and four vCPUs have."""
    one, four = (HERTZ / measured()[way, vcpus] / 1000 for vcpus in _FITTED)  # cycles between pages
    held = round(four)  # four are enough to keep it busy
    apart = round(one) - held
    for _ in range(4):  # what the simulated kernel and hardware do besides is taken off
        apart -= round(page_cycles("alone", 1, held, apart) - one)
        held -= round(page_cycles("alone", 4, held, apart) / 4 - four)
    return held, apart


def predict() -> Report:
    """Predict both ways for more vCPUs, and which is faster."""
    table = measured()
    claims, curves, fits = [], [], {}
    rates: dict[str, dict[int, float]] = {}
    for way in WAYS:
        held, apart = fitted(way)
        rates[way] = {vcpus: rate(vcpus, held, apart) for vcpus in _VCPUS}
        fits[f"a page by {way}, one at a time"] = Fit(held * 1e6 / HERTZ, "us", _FILE, "one and four vCPUs")
        fits[f"a page by {way}, besides"] = Fit(apart * 1e6 / HERTZ, "us", _FILE, "one and four vCPUs")
        for vcpus, found in rates[way].items():
            there = table.get((way, vcpus))
            kind: Kind = "fit" if vcpus in _FITTED else "prediction"
            note, plural = "" if there else "no row is at hand", "s" if vcpus > 1 else ""
            claims.append(Claim(f"{way}, {vcpus} vCPU{plural}, kpages/s", found, there, _BAND, note=note, kind=kind))
            curves.append({"line": way, "x": vcpus, "predicted": found, "measured": there})
    more = [vcpus for vcpus in _VCPUS if vcpus not in _FITTED and ("exits", vcpus) in table]
    there = all(table["exits", vcpus] > table["userfaultfd", vcpus] for vcpus in more)
    here = all(rates["exits"][vcpus] > rates["userfaultfd"][vcpus] for vcpus in more)
    said = {True: "exits", False: "not always exits"}
    return Report(
        title="Pages brought in by user space, by how it is told of them: thousands a second",
        source="A. Moorthy, KVM_CAP_MEM_FAULT_NOWAIT, cover letter (an x86 machine with 256 cores)",
        fitted=fits,
        claims=tuple(claims),
        findings=(Finding("faster, of more vCPUs", said[here], said[there], here == there),),
        details={"simulated": "a queue; neither user space nor its threads"},
        curves=curves,
        axes=("vCPUs", "kpages/s"),
    )
