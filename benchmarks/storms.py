"""Fault storms: how many lazy EPT violations a second of wall time, and how many where SimPy handles each."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.table import Row

if TYPE_CHECKING:
    from vmsim.record.outcome import VmOutcome
    from vmsim.scenario import Scenario

__all__ = ["HOST", "measure", "storm"]

PAGES = 400_000
TURNS = 3
HOST = """
seed = 1
[host]
cpu = "skylake-x"
cores = 1
memory = "4GiB"
pool = { min = 1024, max = 16384, batch = 4096 }
"""
SCENARIO = """
[[vm]]
name = "storm"
memory = "3GiB"
mode = "ept"
guest_page = "{guest}"
populate = "lazy"
workload = {{ kind = "sequential", footprint = "{bytes}B", stride = "4KiB", accesses = {pages} }}
"""


def storm(scenario: Scenario, *, serve: bool) -> Iterator[tuple[VmOutcome, float]]:
    """Yield what a few runs of one VM came to, and the seconds of wall time of each."""
    from vmsim.engine.simulation import Simulation
    from vmsim.engine.warm import warm_for

    warm_for(scenario)
    for _ in range(TURNS):
        outcome = Simulation(scenario, serve=serve).run()
        if outcome.ending is not None:
            raise RuntimeError(outcome.ending.message)
        yield outcome.vms[0], outcome.wall_seconds


def measure(pages: int = PAGES) -> Iterator[Row]:
    """Yield violations a second: with large guest pages nearly every fault is one, with small ones every second."""
    from vmsim.scenario import Scenario

    for guest, serve in (("2M", True), ("4K", True), ("2M", False)):
        scenario = Scenario.from_toml(HOST + SCENARIO.format(guest=guest, bytes=pages * 4096, pages=pages))
        rates = []
        for vm, seconds in storm(scenario, serve=serve):
            violations, faults = vm.exits["EPT_VIOLATION"][0], vm.guest_faults
            rates.append(violations / seconds)
        yield Row(
            f"EPT violations, {guest} guest pages{'' if serve else ', SimPy alone'}",
            median(rates),
            "/s",
            1_000_000 if serve else 100_000,
            at_least=True,
            note=f"{violations:,} violations and {faults:,} guest faults a run",
        )
