"""Interrupts of pages that go to another node in batches, against one by one (Huang Ying, migrate_pages(), 2022).

pmbench runs on both sockets of a host while all of its pages are moved from one to the other. Linux unmapped each page,
flushed it from the TLBs, copied it and mapped it again before it went to the next; with the patches it does each of
these for 512 pages at a time at most. Nothing is fitted. A program (`mode = "native"`) of four threads has 16 MiB, and
its pages are given to the host's mover so many at a time.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from vmsim.contracts import Steps
from vmsim.engine.simulation import Simulation
from vmsim.host.daemons.moving import Mover
from vmsim.scenario import Scenario
from vmsim.validation.report import Claim, Report
from vmsim.workloads.stream import PAGE

__all__ = ["BATCH", "Migrated", "measured", "migrated", "predict"]

BATCH: Final = 512
_SIZES: Final = (1, 16, 64, BATCH)
_PAGES: Final = 4096
_THREADS: Final = 4
_BAND: Final = 0.2
_START: Final = 100_000  # cycles: all threads run by then
_FILE: Final = "page_migration_batch22.csv"


def measured() -> float:
    """Return by how many percent the interrupts change."""
    text = files("vmsim.validation").joinpath(f"data/{_FILE}").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return next(float(row["value"]) for row in rows if row["quantity"] == "TLB flush IPIs")


@dataclass(frozen=True, slots=True)
class Migrated:
    """What moving a program's pages took: pages that went, interrupts, and cycles."""

    pages: int
    interrupts: int
    cycles: int


@cache
def migrated(batch: int, pages: int = _PAGES) -> Migrated:
    """Simulate a program all of whose pages go to the other node, so many at a time."""
    vm: dict[str, Any] = {
        "name": "pmbench",
        "memory": 2 * pages * PAGE,
        "mode": "native",
        "vcpus": _THREADS,
        "populate": "eager",
        "workload": {
            "kind": "normal",
            "footprint": pages * PAGE,
            "accesses": 300 * pages,
            "threads": _THREADS,
            "compute": 200,
        },
    }
    node = {"memory": 4 * pages * PAGE + (64 << 20), "cpus": _THREADS // 2}
    host = {"cpu": "cascade-lake", "nodes": [node, node], "remote_cycles": 135}
    simulation = Simulation(Scenario.from_tables({"host": host, "vm": [vm]}))
    clock, program = simulation.env, simulation.vms[0]
    mover = Mover(simulation.host, simulation.scenario.cpu.cost)
    found = list[Migrated]()

    def moves() -> Steps[None]:
        yield clock.timeout(_START)
        assert program.pages
        numbers = program.pages.present()
        before, went = program.shootdown.counts["kicks"], 0
        for first in range(0, len(numbers), batch):
            moved = mover.move(program, numbers[first : first + batch], 1, least=0)
            went += moved.frames
            yield clock.timeout(moved.cycles)
        found.append(Migrated(went, program.shootdown.counts["kicks"] - before, clock.cycle - _START))

    clock.process(moves())
    simulation.run()
    return found[0]


def predict() -> Report:
    """Predict how interrupts change, and what a page takes."""
    runs = {batch: migrated(batch) for batch in _SIZES}
    one = runs[1]
    changes = {batch: 100 * (run.interrupts / one.interrupts - 1) for batch, run in runs.items()}
    times = {batch: 100 * (run.cycles / one.cycles - 1) for batch, run in runs.items()}
    none = "no row is at hand"
    return Report(
        title="Pages of a program moved to another node, so many at a time against one by one: change in per cent",
        source="Huang Ying, [RFC 0/6] migrate_pages(): batch TLB flushing, September 2022: a server of two sockets",
        fitted={"nothing": "all costs are the preset's"},
        claims=(
            Claim(f"interrupts, {BATCH} at a time, %", changes[BATCH], measured(), _BAND),
            *(Claim(f"interrupts, {size} at a time, %", changes[size], None, None, note=none) for size in _SIZES[1:-1]),
            *(Claim(f"time, {size} at a time, %", times[size], None, None, note=none) for size in _SIZES[1:]),
        ),
        details={"simulated": f"{_PAGES * PAGE >> 20} MiB of {_THREADS} threads on two sockets of cascade-lake"},
    )
