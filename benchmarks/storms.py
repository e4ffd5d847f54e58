"""Fault storms: how many demand-paging faults a second of processor time, of one VM and of many at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.table import Row

if TYPE_CHECKING:
    from vmsim.record.outcome import Outcome, VmOutcome
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

MANY = (1, 2, 4, 16, 64)  # VMs, on as many cores
EACH = 16_384  # pages that each of them touches
SHARE = 0.8  # of the speed of one VM that many are to reach together
LEAST = 400_000  # faults a second under EPT with small pages
CELLS = {
    "native": 'mode = "native"',
    "ept": 'mode = "ept"',
    "ept, 2M guest pages": 'mode = "ept"\nguest_page = "2M"',
    "npt": 'mode = "npt"\nhost_levels = 4',
    "shadow, kvm": 'mode = "shadow"\nshadow = { preset = "kvm" }',
    "shadow, plex86": 'mode = "shadow"\nshadow = { preset = "plex86" }',
    "agile": 'mode = "agile"',
    "vkernel": 'mode = "vkernel"',
}
CROWD = """
seed = 1
[host]
cpu = "skylake-x"
cores = {cores}
memory = "{host}MiB"
what_if = true
pool = {{ min = 64, max = 4096, batch = 1024 }}
"""
ONE = """
[[vm]]
name = "vm{number}"
memory = "{memory}MiB"
{keys}
populate = "lazy"
[vm.workload]
kind = "sequential"
footprint = "{bytes}B"
stride = "4KiB"
accesses = {pages}
writes = 0.5
"""


def storm(scenario: Scenario, *, serve: bool) -> Iterator[tuple[VmOutcome, float]]:
    """Yield what a few runs of one VM came to, and the seconds of processor time of each."""
    from vmsim.engine.warm import warm_for

    warm_for(scenario)
    for _ in range(TURNS):
        seconds, outcome = _timed(scenario, serve=serve)
        yield outcome.vms[0], seconds


def measure(pages: int = PAGES, each: int = EACH) -> Iterator[Row]:
    """Yield violations a second of one VM, then faults a second of many."""
    yield from _violations(pages)
    yield from _crowds(each)


def _violations(pages: int) -> Iterator[Row]:
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


def _crowds(each: int) -> Iterator[Row]:
    """Yield first touches a second of so many pages by each of 1 to 64 VMs: many are to be nearly as fast as one.

    The numbers of VMs take turns, and the best of each counts: a busy machine slows all of them down.
    """
    for name, keys in CELLS.items():
        crowds = {vms: _crowd(keys, vms, each) for vms in MANY}
        rates = _rates(crowds, each)
        for vms, rate in rates.items():
            least = max(SHARE * rates[1] if vms > 1 else 0, LEAST if name == "ept" else 0)
            note = f"{rate / rates[1]:.2f} of one VM's" if vms > 1 else ""
            what = f"first touches, {name}, {vms} VM{'s' if vms > 1 else ''}"
            yield Row(what, rate, "/s", least, at_least=True, note=note)


def _crowd(keys: str, vms: int, each: int) -> Scenario:
    from vmsim.scenario import Scenario

    memory = (each >> 8) + 16
    text = CROWD.format(cores=vms, host=vms * memory * 2 + 64)
    for number in range(vms):
        text += ONE.format(number=number, memory=memory, keys=keys, bytes=each * 4096, pages=each)
    return Scenario.from_toml(text)


def _rates(crowds: Mapping[int, Scenario], each: int) -> dict[int, float]:
    """Return first touches a second of processor time of each crowd, the best of some turns."""
    from vmsim.engine.warm import warm_for

    for scenario in crowds.values():
        warm_for(scenario)
    rates = dict.fromkeys(crowds, 0.0)
    for _ in range(TURNS):
        for vms, scenario in crowds.items():
            rates[vms] = max(rates[vms], vms * each / _timed(scenario)[0])
    return rates


def _timed(scenario: Scenario, *, serve: bool = True) -> tuple[float, Outcome]:
    """Run; return the seconds of processor time, and what came of it."""
    from vmsim.engine.simulation import Simulation

    simulation = Simulation(scenario, serve=serve)
    start = time.process_time()
    outcome = simulation.run()
    if outcome.ending is not None:
        raise RuntimeError(outcome.ending.message)
    return time.process_time() - start, outcome
