"""Operations of a guest's kernel: pages a second that are mapped, touched and unmapped, and copied by fork and exit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.table import Row

__all__ = ["measure"]

TURNS = 3
ROUNDS = 2000
BLOCK = 32  # pages
FORKS = 20
PROCESS = 64 << 20  # bytes
SCENARIO = """
seed = 1
[host]
cpu = "{cpu}"
cores = 1
memory = "1GiB"
pool = {{ min = 1024, max = 16384, batch = 4096 }}
[[vm]]
name = "{name}"
memory = "256MiB"
mode = "{mode}"
{keys}
workload = {workload}
"""
CHURN = '{{ kind = "churn", footprint = "64MiB", burst = "128KiB", rounds = {times}, filled = true }}'
FORK = '{{ kind = "forkwait", footprint = "64MiB", forks = {times} }}'


class _Mode(NamedTuple):
    """A paging mode, and pages a second that it should reach: at least 3 times those of commit d13b093, vkernel 5."""

    mode: str
    churn: float
    fork: float
    cpu: str = "skylake-x"
    keys: str = ""
    slow: int = 1  # a part of the rounds is enough


MODES = {
    "native": _Mode("native", 423_000, 7_600_000),
    "ept": _Mode("ept", 288_000, 9_000_000),
    "npt": _Mode("npt", 288_000, 7_200_000, cpu="zen2"),
    "shadow": _Mode("shadow", 324_000, 6_200_000, keys='shadow = { preset = "kvm" }'),
    "shadow, plex86": _Mode("shadow", 300_000, 2_500_000, keys='shadow = { preset = "plex86" }'),
    "agile": _Mode("agile", 75_000, 600_000, slow=4),
    "vkernel": _Mode("vkernel", 110_000, 240_000, slow=4),
    "paired": _Mode("paired", 40_000, 420_000, keys="paired = { guest = false }", slow=4),
    "paired, a VM": _Mode("paired", 148_000, 400_000, keys="paired = { guest = true }", slow=2),
}


def measure(rounds: int = ROUNDS, forks: int = FORKS) -> Iterator[Row]:
    """Yield pages a second of processor time in each mode, by blocks of 128 KiB and by a process of 64 MiB."""
    for name, mode in MODES.items():
        times = max(1, rounds // mode.slow)
        rate, note = _rate(name, mode, CHURN, times, times * BLOCK)
        yield Row(f"map, touch, unmap: {name}", rate, "/s", mode.churn, at_least=True, note=note)
        times = max(1, forks // mode.slow)
        rate, note = _rate(name, mode, FORK, times, times * PROCESS >> 12)
        yield Row(f"fork, exit: {name}", rate, "/s", mode.fork, at_least=True, note=note)


def _rate(name: str, mode: _Mode, workload: str, times: int, pages: int) -> tuple[float, str]:
    """Return pages a second, over what a run without rounds takes, and a note."""
    none, all_of_them = (_seconds(name, mode, workload, count) for count in (1, 1 + times))
    seconds = max(all_of_them - none, 1e-9)
    return pages / seconds, f"{pages:,} pages in {seconds:.2f} s of processor time"


def _seconds(name: str, mode: _Mode, workload: str, times: int) -> float:
    """Return the least processor time of a few runs, of which the first compiles what is missing."""
    from vmsim.engine.simulation import Simulation
    from vmsim.engine.warm import warm_for
    from vmsim.scenario import Scenario

    text = SCENARIO.format(
        name="guest", cpu=mode.cpu, mode=mode.mode, keys=mode.keys, workload=workload.format(times=times)
    )
    scenario = Scenario.from_toml(text)
    warm_for(scenario)
    found = []
    for _ in range(TURNS):
        start = time.process_time()
        outcome = Simulation(scenario).run()
        found.append(time.process_time() - start)
        if outcome.ending is not None:
            raise RuntimeError(outcome.ending.message)
    return min(found)
