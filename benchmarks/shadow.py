"""Shadow exits: how many a second of processor time, and how many where SimPy handles each."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from benchmarks.storms import HOST, storm
from benchmarks.table import Row

__all__ = ["measure"]

PAGES = 200_000
SCENARIO = """
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

    for preset, serve in (("kvm-2007", True), ("plex86", True), ("kvm-2007", False), ("plex86", False)):
        scenario = Scenario.from_toml(HOST + SCENARIO.format(preset=preset, bytes=pages * 4096, pages=pages))
        rates = []
        for vm, seconds in storm(scenario, serve=serve):
            counts = {reason: count for reason, (count, _) in vm.exits.items()}
            rates.append(sum(counts.values()) / seconds)
        yield Row(
            f"shadow exits, preset {preset}{'' if serve else ', SimPy alone'}",
            median(rates),
            "/s",
            1_000_000 if serve else 60_000,
            at_least=True,
            note=", ".join(f"{count:,} {reason}" for reason, count in counts.items()),
        )
