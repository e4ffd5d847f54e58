"""Processes that touch 4 GiB each, 1 MiB at a time, under EPT and under a shadow (PVM, SOSP 2023, figures 4 and 10).

Each of N processes of one guest, on a CPU of its own, maps 1 MiB, writes to each of its pages and unmaps it again,
until it has written 4 GiB. The guest's memory is backed before, as the data's note has it (`software_costs.csv`), so
that under EPT nothing exits. Two numbers are fitted on one process: what the guest's kernel takes for a fault
(`guest_fault`: page-table isolation is in it), under EPT, and how many times its cycles of the presets the monitor's
software takes, under the shadow. More processes are predicted: what grows with them is waiting for `mmu_lock`, under
the shadow alone. Eight rounds of each are simulated, of which four count; a round is like any other.

Of the locks of the guest's allocator, which nobody waits for here, what is published gives a bound. will-it-scale's
page_fault1 by 112 CPUs on two sockets of Skylake, whose time goes by to four fifths in waiting for the two zones'
locks, faults in and frees 8,000,124 pages a second (A. Lu, mm/free_pcppages_bulk: do not hold lock when picking pages
to free, linux-mm, January 2018): 250 ns of one lock for each.
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
from vmsim.scenario import Scenario, load_cpu
from vmsim.validation.report import Claim, Finding, Fit, Kind, Report
from vmsim.workloads import Chunk, Event, Op
from vmsim.workloads import Kind as Access
from vmsim.workloads.stream import PAGE, Regions

__all__ = ["MODES", "ZONE_LOCK", "Chunks", "fitted", "measured", "predict", "seconds"]

MODES: Final = {"ept": "EPT", "shadow": "SPT"}
ZONE_LOCK: Final = 2 / 8_000_124
"""Seconds of a zone's lock for a page that is faulted in and freed again."""
_FILE: Final = "pvm23_faults.csv"
_CPU: Final = "cascade-lake"
_HERTZ: Final = 2_500_000_000
_BAND: Final = 0.3
_BASE: Final = 0x10_0000_0000
_CHUNK: Final = (1 << 20) // PAGE
_PAGES: Final = (4 << 30) // PAGE
_ROUNDS: Final = 8
_COUNTS: Final = (1, 2, 4, 8, 16, 32)
_SOFTWARE: Final = (
    *("violation_walk", "violation_pool", "violation_entry", "violation_rmap", "violation_resume", "inject"),
    *("decode", "emulate", "guest_walk_level", "table_page", "shadow_drop", "ad_sync", "resync_entry"),
)


def measured() -> dict[tuple[str, str, int], float]:
    """Return the published seconds by figure (fig4, fig10), EPT or SPT, and processes."""
    text = files("vmsim.validation").joinpath(f"data/{_FILE}").read_text(encoding="utf-8")
    names = {"EPT": "EPT", "SPT": "SPT", "kvm-ept BM": "EPT", "kvm-spt BM": "SPT"}
    return {
        (row["figure"], names[row["mode"]], int(row["processes"])): float(row["seconds"])
        for row in csv.DictReader(text.splitlines())
    }


@dataclass
class Chunks:
    """Processes, one on each CPU, that map 1 MiB, write to each of its pages and unmap it, round after round."""

    threads: int
    rounds: int
    name: str = "chunks"

    @property
    def accesses(self) -> int:
        """Writes of all processes."""
        return self.threads * self.rounds * _CHUNK

    def footprint(self) -> Regions:
        """Return the region, which is each process's own."""
        return np.array([_BASE], np.int64), np.array([_CHUNK * PAGE], np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read the rounds of a process; the first begins with a switch to it."""
        pid, size = 2 + thread, _CHUNK * PAGE
        address = _BASE + PAGE * np.arange(_CHUNK, dtype=np.int64)
        counts, kinds = np.ones(_CHUNK, np.int32), np.full(_CHUNK, Access.WRITE, np.uint8)
        switch = (Event(0, Op.SWITCH, pid, 0, 0, 0),)
        events = Event(0, Op.MAP, pid, _BASE, size, 3), Event(_CHUNK, Op.UNMAP, pid, _BASE, size, 0)
        for number in range(self.rounds):
            yield Chunk(address, counts, kinds, events if number else switch + events)

    def digest(self) -> str:
        """Return nothing: it is no workload of a scenario."""
        return ""


@cache
def seconds(mode: str, processes: int, guest_fault: int, scale: float = 1.0, rounds: int = _ROUNDS) -> float:
    """Return how long so many processes take for 4 GiB each.

    Parameters
    ----------
    mode : str
        A paging mode.
    processes : int
    guest_fault : int
        Cycles.
    scale : float, optional
        How many times its cycles the monitor's software takes.
    rounds : int, optional
        Half of them before any is counted.
    """
    cost = load_cpu(_CPU).cost
    costs = {key: round(scale * getattr(cost, key)) for key in _SOFTWARE} | {"guest_fault": guest_fault}
    vm: dict[str, Any] = {
        "name": "vm",
        "memory": (processes * 4 + 64) << 20,
        "mode": mode,
        "vcpus": processes,
        "populate": "eager",
        "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1, "compute": 0},
    }
    host = {
        "cpu": _CPU,
        "cores": processes,
        "memory": (processes * 8 + 256) << 20,
        "horizon": "300ns",  # a vCPU that runs ahead takes the lock before its turn
        "cpu_override": {"frequency": _HERTZ, "cost": costs},
    }
    scenario = Scenario.from_tables({"warmup": "50%", "host": host, "vm": [vm]})
    only = Simulation(scenario, streams=[Chunks(processes, rounds)]).run().vms[0]
    return (only.finish - only.start) / _HERTZ * _PAGES / (rounds // 2 * _CHUNK)


@cache
def fitted() -> tuple[int, float]:
    """Return `guest_fault` and the scale of the monitor's software that one process has in figure 10."""
    table, before = measured(), load_cpu(_CPU).cost.guest_fault
    short = table["fig10", "EPT", 1] - seconds("ept", 1, before)
    fault = before + round(short * _HERTZ / _PAGES)
    one, two = (seconds("shadow", 1, fault, scale) for scale in (1.0, 2.0))
    return fault, 1 + (table["fig10", "SPT", 1] - one) / (two - one)


def predict() -> Report:
    """Predict several processes."""
    table = measured()
    fault, scale = fitted()
    times = {(mode, count): seconds(mode, count, fault, scale) for mode in MODES for count in _COUNTS}
    claims, curves = [], []
    for (mode, count), time in times.items():
        for figure in ("fig10", "fig4"):
            there, plural = table.get((figure, MODES[mode], count)), "es" if count > 1 else ""
            kind: Kind = "fit" if count == 1 else "prediction"
            note = "" if there else "no row is at hand"
            if there or figure == "fig10":
                name = f"{MODES[mode]}, {count} process{plural}, {figure}, s"
                claims.append(Claim(name, time, there, _BAND, note=note, kind=kind))
        there = table.get(("fig10", MODES[mode], count))
        curves.append({"line": MODES[mode], "x": count, "predicted": time, "measured": there})
    many = [count for count in _COUNTS if count > 1 and ("fig10", "EPT", count) in table]
    here = [times[mode, count] for mode in MODES for count in (1, *many)]
    seen = [table["fig10", name, count] for name in MODES.values() for count in (1, *many)]
    names = [f"{name} {count}" for name in MODES.values() for count in (1, *many)]
    order, expected = (" < ".join(name for _, name in sorted(zip(each, names, strict=True))) for each in (here, seen))
    most = {count: ZONE_LOCK * count * _PAGES for count in many}
    return Report(
        title="N processes of a guest that touch 4 GiB each, 1 MiB at a time: s",
        source="PVM, SOSP 2023, figures 4 and 10: Xeon Platinum 8269CY, Linux 4.19",
        fitted={
            "a page fault in the guest": Fit(
                fault, "cycles of 2.5 GHz", _FILE, "one process under EPT, figure 10", "the presets have 1,000"
            ),
            "the monitor's software": Fit(scale, "of the presets'", _FILE, "one process under SPT, figure 10"),
        },
        claims=tuple(claims),
        findings=(Finding("order", order, expected, order == expected),),
        details={
            "zone lock": "not simulated; were it all that they wait for, at most "
            + ", ".join(f"{time:.1f} s for {count}" for count, time in most.items()),
        },
        curves=curves,
        axes=("processes", "s for 4 GiB each"),
    )
