"""Shadow exits: how many a second of wall time, and how many where SimPy handles each."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks.table import Row

__all__ = ["measure"]

PAGES = 200_000
TURNS = 3
SCENARIO = """
seed = 1
[host]
cpu = "skylake-x"
cores = 1
memory = "4GiB"
pool = {{ min = 1024, max = 16384, batch = 4096 }}
[[vm]]
name = "storm"
memory = "2GiB"
mode = "shadow"
populate = "lazy"
shadow = {{ preset = "{preset}" }}
workload = {{ kind = "sequential", footprint = "{bytes}B", stride = "4KiB", accesses = {pages}, writes = 0.5 }}
"""


def measure(pages: int = PAGES) -> Iterator[Row]:
    """Yield exits a second of demand paging, the guest kernel's own work on each fault included."""
    from vmsim.scenario import Scenario
    from vmsim.simulation import Simulation
    from vmsim.warm import warm_for

    for preset, serve in (("kvm", True), ("plex86", True), ("kvm", False), ("plex86", False)):
        scenario = Scenario.from_toml(SCENARIO.format(preset=preset, bytes=pages * 4096, pages=pages))
        warm_for(scenario)
        rates, counts = [], {}
        for _ in range(TURNS):
            outcome = Simulation(scenario, serve=serve).run()
            if outcome.ending is not None:
                raise RuntimeError(outcome.ending.message)
            counts = {reason: count for reason, (count, _) in outcome.vms[0].exits.items()}
            rates.append(sum(counts.values()) / outcome.wall_seconds)
        yield Row(
            f"shadow exits, preset {preset}{'' if serve else ', SimPy alone'}",
            median(rates),
            "/s",
            1_000_000 if serve else 60_000,
            at_least=True,
            note=", ".join(f"{count:,} {reason}" for reason, count in counts.items()),
        )
