"""ebizzy in VMs that share their host's processors, with paravirtual flushes and without (W. Li, KVM: X86, 2017, 2019).

ebizzy -M: each thread allocates 512 KiB by malloc, never by mmap, copies a chunk to it, searches that and frees it
(ebizzy.c). glibc gives what a thread has freed at the top of its arena back by madvise (malloc/arena.c, shrink_heap),
so that each record is 128 page faults and a discard of 128 pages, of which all CPUs of the process are told. Here each
vCPU has a thread. What a record takes besides, between its pages, is fitted to one VM without paravirtual flushes.
Predicted are one VM with them, and two and three VMs without and with.

16 vCPUs of each VM share 16 processors, in place of 64 or 80: records are scaled by the vCPUs. A vCPU runs for 12 ms:
two share a processor, and Linux's latency of 24 ms (kernel/sched/fair.c: 6 ms on one CPU, four times as much on eight
and more).
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
from vmsim.validation.report import Claim, Finding, Fit, Report
from vmsim.workloads import Chunk, Event, Kind, Op
from vmsim.workloads.stream import PAGE, Regions

__all__ = ["VCPUS", "Ebizzy", "fitted", "measured", "overcommitted", "predict", "records"]

VCPUS: Final = 64
_FILE: Final = "pv_tlb_flush17.csv"
_LOCKS: Final = "pv_lock_overcommit19.csv"
_HERTZ: Final = 2_600_000_000
_BAND: Final = 0.15
_BASE: Final = 0x10_0000_0000
_ARENA: Final = 64 << 20
_CHUNK: Final = (512 << 10) // PAGE
_SCALED: Final = 16
_ROUNDS: Final = 16


def measured() -> dict[tuple[int, bool], float]:
    """Return the published records a second of each VM by VMs and whether flushes are paravirtual."""
    text = files("vmsim.validation").joinpath(f"data/{_FILE}").read_text(encoding="utf-8")
    columns = {False: "ebizzy_vanilla", True: "ebizzy_pv_tlb"}
    rows = [*csv.DictReader(text.splitlines())]
    return {(int(row["vms"]), pv): float(row[name]) for row in rows for pv, name in columns.items() if row[name]}


def overcommitted() -> tuple[float, float]:
    """Return the lowest and the highest of the published records a second of three VMs of 80 vCPUs."""
    text = files("vmsim.validation").joinpath(f"data/{_LOCKS}").read_text(encoding="utf-8")
    (row,) = csv.DictReader(text.splitlines())
    return float(row["ebizzy_low"]), float(row["ebizzy_high"])


@dataclass
class Ebizzy:
    """Threads that write to 512 KiB and have it discarded, record after record; they do not begin at the same time."""

    threads: int
    rounds: int
    name: str = "ebizzy"

    @property
    def accesses(self) -> int:
        """Accesses of all threads, those before the first record among them."""
        return sum(int(chunk.count.sum()) for thread in range(self.threads) for chunk in self.chunks(thread))

    def footprint(self) -> Regions:
        """Return a page: all else is touched for the first time after it was discarded."""
        return np.array([_BASE], np.int64), np.array([PAGE], np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read a thread's records."""
        base = _BASE + thread * _ARENA
        address = base + PAGE * np.arange(_CHUNK, dtype=np.int64)
        counts, kinds = np.ones(_CHUNK, np.int32), np.full(_CHUNK, Kind.WRITE, np.uint8)
        discard = Event(_CHUNK, Op.DISCARD, 1, base, _CHUNK * PAGE, 0)
        yield Chunk(address[:1], np.array([1 + thread * _CHUNK // self.threads], np.int32), kinds[:1], ())
        for _ in range(self.rounds):
            yield Chunk(address, counts, kinds, (discard,))

    def digest(self) -> str:
        """Return nothing: it is no workload of a scenario."""
        return ""


@cache
def records(vms: int, compute: int, *, pv: bool = False, vcpus: int = VCPUS, rounds: int = _ROUNDS) -> float:
    """Return the records a second of each VM, the mean of all.

    Parameters
    ----------
    vms : int
        VMs that share the processors.
    compute : int
        Cycles besides for each page of a record.
    pv : bool, optional
        Whether flushes are paravirtual.
    vcpus : int, optional
        That the records are scaled to.
    rounds : int, optional
        Records of each thread.
    """
    vm: dict[str, Any] = {
        "name": "vm",
        "count": vms,
        "memory": 128 << 20,
        "mode": "ept",
        "vcpus": _SCALED,
        "pv_flush": pv,
        "populate": "eager",
        "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1, "compute": compute},
    }
    host = {
        "cpu": "skylake-x",
        "cores": _SCALED,
        "memory": (vms * 256 + 256) << 20,
        "scheduler": "fair",
        "quantum": "12ms",
        "cpu_override": {"frequency": _HERTZ},
    }
    scenario = Scenario.from_tables({"host": host, "vm": [vm]})
    done = Simulation(scenario, streams=[Ebizzy(_SCALED, rounds) for _ in range(vms)]).run().vms
    made = rounds + 1 - 1 / _SCALED  # of the thread that begins last, whose start takes as long as part of a record
    return sum(vcpus * made * _HERTZ / (each.finish - each.start) for each in done) / vms


@cache
def fitted() -> int:
    """Return the cycles besides for each page of a record with which one VM is as fast as measured."""
    wanted = VCPUS * _HERTZ / measured()[1, False] / _CHUNK
    compute = round(wanted)
    for _ in range(2):  # what the simulated kernel and hardware do is taken off
        compute += round(wanted - VCPUS * _HERTZ / records(1, compute) / _CHUNK)
    return compute


def predict() -> Report:
    """Predict one VM with paravirtual flushes, and several without and with."""
    table, compute = measured(), fitted()
    rates = {(vms, pv): records(vms, compute, pv=pv) for vms in (1, 2) for pv in (False, True)}
    claims = []
    for (vms, pv), rate in rates.items():
        there, plural, how = table.get((vms, pv)), "s" if vms > 1 else "", "with" if pv else "without"
        claims.append(
            Claim(
                f"{vms} VM{plural}, {how} paravirtual flushes, records/s",
                rate,
                there,
                _BAND,
                note="" if there else "no row is at hand",
                kind="prediction" if vms > 1 or pv else "fit",
            )
        )
    low, high = overcommitted()
    three = records(3, compute, vcpus=80)
    inside = (low * (1 - _BAND), high * (1 + _BAND))
    claims.append(Claim("3 VMs of 80 vCPUs, without, records/s", three, (low + high) / 2, None, inside=inside))
    order = "with before without" if rates[1, True] > rates[1, False] else "without before with, or alike"
    expected = "with before without"
    return Report(
        title="ebizzy in VMs that share their processors: records a second of each",
        source="W. Li, [PATCH v8 0/4] KVM: X86: Add Paravirt TLB Shootdown, 2017; commit 89340d0935c9, 2019",
        fitted={
            "a record without its faults and its discard": Fit(
                compute * _CHUNK / _HERTZ * 1e6, "us", _FILE, "one VM without", f"{compute} cycles a page"
            )
        },
        claims=tuple(claims),
        findings=(Finding("order, one VM", order, expected, order == expected),),
        details={"simulated": f"{_SCALED} vCPUs of each VM on as many processors of skylake-x at 2.6 GHz"},
    )
