"""Faults of a guest's vCPUs before and after they could be handled in parallel (O. Upton, KVM: arm64, 2022).

dirty_log_perf_test on an arm64 machine that is not named: each vCPU touches 4 GiB of its own, which is brought in by
huge pages of 2 MiB (populate), and writes to each page of it once it is logged (dirty). Before the patches such a fault
holds the VM's lock alone (arch/arm64/kvm/mmu.c, user_mem_abort: to read only where a page of 4 KiB gets its right to
write back, and here the huge page was cleared); after them all hold it to read.

The queue is that of `dirty-lock`. The whole of a fault is fitted on one vCPU; the share of it for which the lock is
held is not known from one vCPU, and is the one that the same test had on an Ampere Altra, in the rows that are fitted
there. A huge page's fault holds it for as long as a small one's: an entry is written, and its page is cleared outside.
So is what cache lines of locks take from one vCPU to the next.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Final

from vmsim.validation.dirty_lock import fitted
from vmsim.validation.lock_queue import ALTRA_LINE, HERTZ, page_cycles
from vmsim.validation.report import Claim, Fit, Kind, Report
from vmsim.workloads.stream import PAGE

__all__ = ["FAULTS", "measured", "parts", "predict", "seconds"]

_FILE: Final = "arm64_stage2_parallel22.csv"
_BAND: Final = 0.1
_VCPUS: Final = (1, 2, 4, 8, 16, 32, 64)
_SIZE: Final = 4 << 30
FAULTS: Final = {"dirty": _SIZE // PAGE, "populate": _SIZE // (2 << 20)}
"""Of each vCPU, by what is measured."""
_LOCKS: Final = {"before": "alone", "after": "read"}


def measured() -> dict[tuple[str, str, int], float]:
    """Return the published seconds by what is measured (dirty, populate), patches (before, after) and vCPUs."""
    text = files("vmsim.validation").joinpath(f"data/{_FILE}").read_text(encoding="utf-8")
    return {
        (what, when, int(row["vcpus"])): float(row[f"{what}_s_{when}"])
        for row in csv.DictReader(text.splitlines())
        for what in FAULTS
        for when in _LOCKS
    }


def parts(what: str, when: str, share: float) -> tuple[int, int]:
    """Return the cycles of a fault with the lock held, and besides, if a dirty one holds it for such a share."""
    table = measured()
    held = round(share * table["dirty", when, 1] * HERTZ / FAULTS["dirty"])
    return held, round(table[what, when, 1] * HERTZ / FAULTS[what]) - held


def seconds(what: str, when: str, vcpus: int, share: float) -> float:
    """Return how long so many vCPUs take."""
    held, apart = parts(what, when, share)
    lock, faults = _LOCKS[when], FAULTS[what]
    over = page_cycles(lock, 1, held, apart) - (held + apart)  # what the simulated kernel and hardware do besides
    return page_cycles(lock, vcpus, held, apart - round(over), line=ALTRA_LINE) * faults / HERTZ


def predict() -> Report:
    """Predict two vCPUs, and more."""
    table = measured()
    held, apart = fitted()
    share = held / (held + apart)
    claims, curves = [], []
    for what in FAULTS:
        for when in _LOCKS:
            for vcpus in _VCPUS:
                time, there = seconds(what, when, vcpus, share), table.get((what, when, vcpus))
                note = "" if there else "no row is at hand"
                kind: Kind = "fit" if vcpus == 1 else "prediction"
                plural = "s" if vcpus > 1 else ""
                claims.append(
                    Claim(f"{what}, {when}, {vcpus} vCPU{plural}, s", time, there, _BAND, note=note, kind=kind)
                )
                curves.append({"line": f"{what}, {when}", "x": vcpus, "predicted": time, "measured": there})
    each = ", ".join(f"{what} {when} {table[what, when, 1]:g} s" for what in FAULTS for when in _LOCKS)
    return Report(
        title="Touching 4 GiB a vCPU, and writing to it once it is logged, on arm64: s",
        source="O. Upton, [PATCH 00/14] KVM: arm64: Parallel stage-2 fault handling, August 2022",
        fitted={
            "what a fault takes": Fit(
                table["dirty", "before", 1] * 1e9 / FAULTS["dirty"],
                "ns, dirty before",
                _FILE,
                "one vCPU of each column",
                each,
            ),
            "share of it with the lock held": Fit(
                share, "", "arm64_dirty_log22.csv", "one and four vCPUs, the lock held alone", "of another machine"
            ),
        },
        claims=tuple(claims),
        curves=curves,
        axes=("vCPUs", "s for 4 GiB each"),
    )
