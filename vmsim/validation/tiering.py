"""pmbench on DRAM and persistent memory, by how pages are promoted (Huang Ying, "memory tiering: hot page selection").

Threads of a program draw pages by the normal law (pmbench's normal_ih), and read four times of five, after they have
written each page once; half of all fits DRAM. Cold pages are demoted, and pages of persistent memory promoted: all that
are accessed after a scan has marked them, as Linux did before (base), those accessed soon after (hot page selection),
so many of them in a second (rate limit), or with a threshold that follows this limit (automatic threshold).

The machine is simulated at a small scale. Its memory is SHRUNK times smaller, and it makes so many times fewer
accesses, for it has fewer cores: how many times is the one number that is fitted, to the accesses of base. Each page
then has its accesses in a second of the machine's in so much less time, to which all times of Linux's are scaled; rates
and bandwidths are scaled by both. What an access, a fault or a copy takes is not.

All variants but base are predicted without their rows: no more is at hand. What can be compared in the end is their
order.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

from vmsim.base.units import PAGE
from vmsim.engine.run import simulate
from vmsim.scenario import Scenario
from vmsim.validation.report import Claim, Fit, Report

__all__ = ["VARIANTS", "Found", "fit_scale", "measured", "predict", "row_of", "run", "scenario"]

SHRUNK: Final = 4096
THREADS: Final = 4
SET: Final = 128 << 30  # bytes that the program uses; a guess
SECONDS: Final = 300  # of the machine, of which the first half is not measured

# Optane DC (Izraelevitz et al., arXiv:1903.05714; Yang et al., FAST 2020): a random load takes 305 ns. Six modules of a
# socket read 39.4 GB/s and write 13.9, by 256 bytes, of which a random access of 64 uses a quarter. DRAM: 105.9 GB/s.
PMEM_NANOSECONDS: Final = 305
PMEM_READS: Final = 2 * 39.4e9 / 4
PMEM_WRITES: Final = 2 * 13.9e9
DRAM: Final = 2 * 105.9e9

# TLBs and caches that hold as little of this memory as those of the machine do of its own: next to nothing.
_SMALL: Final = {
    "tlb": {"l1": {"4K": {"entries": 4}}, "l2": {"4K": {"entries": 12, "ways": 12}}},
    "cache": {"l1": {"size": "512B"}, "l2": {"size": "1KiB"}, "llc": {"size": "704B", "slices": 1}},
}
SCAN_SIZE: Final = 256 << 20
_SCANNED: Final = 2560 << 20  # bytes that are scanned in a second at most (MAX_SCAN_WINDOW)
RATE: Final = 1.5e8  # accesses in a second, about: how many are simulated, not how fast
_ALWAYS: Final = 10**6  # seconds: longer than anything takes
# "less than 1/10 of the PMEM node write bandwidth" (Documentation/admin-guide/sysctl/kernel.rst), and a tenth of that.
_LIMITS: Final = PMEM_WRITES / 10, PMEM_WRITES / 100

# By name: what is set beside base, times in seconds and rates in bytes a second; and a word of a row that measures it.
VARIANTS: Final[Mapping[str, dict[str, Any]]] = {
    "base": {"word": "base"},
    "hot page selection": {"word": "selection", "hot_threshold": 1},
    "hot page selection, rate limit": {"word": "limit", "hot_threshold": 1, "promote_rate_limit": _LIMITS[0]},
    "hot page selection, a tenth of the limit": {"hot_threshold": 1, "promote_rate_limit": _LIMITS[1]},
    "automatic threshold, rate limit": {
        "word": "threshold",
        "hot_threshold": 1,
        "promote_rate_limit": _LIMITS[0],
        "scan_period_max": 60,
    },
    "automatic threshold, a tenth of the limit": {
        "hot_threshold": 1,
        "promote_rate_limit": _LIMITS[1],
        "scan_period_max": 60,
    },
    "demotion alone": {"mode": "off"},
}


class Found(NamedTuple):
    """What a run came to, at the scale of the machine."""

    accesses: float  # in a second
    promoted: float  # MB in a second


def measured() -> list[dict[str, str]]:
    """Return the rows of the table."""
    text = files("vmsim.validation").joinpath("data/numa_tiering22.csv").read_text(encoding="utf-8")
    return [*csv.DictReader(text.splitlines())]


def row_of(variant: str) -> dict[str, str] | None:
    """Return the row that measures a variant, the last that has its word; None: there is none at hand."""
    word = VARIANTS[variant].get("word")
    return next((row for row in reversed(measured()) if word and word in row["variant"]), None)


def scenario(variant: str, slower: float) -> Scenario:
    """Return the programs of a machine that makes `slower` times the accesses which are simulated."""
    given: dict[str, Any] = {"hot_threshold": _ALWAYS, "scan_period_max": _ALWAYS, "mode": "tiering"}
    given |= VARIANTS[variant]
    second = slower / SHRUNK

    def time(seconds: float) -> str:
        return f"{round(seconds * second * 1e9)}ns"

    size = SET // SHRUNK
    nodes: list[dict[str, Any]] = [
        {"memory": size // 2, "cpus": THREADS, "bandwidth": round(DRAM / slower)},
        {"memory": size, "cycles": round(PMEM_NANOSECONDS * 2.1), "bandwidth": round(PMEM_READS / slower)},
    ]
    host: dict[str, Any] = {"cpu": "cascade-lake", "cpu_override": _SMALL, "data_caches": True, "nodes": nodes}
    host["demotion"] = {"enabled": True}
    if given["mode"] != "off":
        host["numa_balancing"] = {
            "mode": given["mode"],
            "scan_delay": time(1),
            "scan_period_min": time(SET / _SCANNED),
            "scan_period_max": time(given["scan_period_max"]),
            "scan_size": SCAN_SIZE // SHRUNK,
            "hot_threshold": time(given["hot_threshold"]),
            "promote_rate_limit": round(given.get("promote_rate_limit", 64e9) / slower),
        }
    drawn = {"writes": 0.2, "filled": True, "threads": THREADS, "footprint": size}
    workload = {"kind": "normal", "accesses": round(RATE * SECONDS / SHRUNK), **drawn}
    vm = {"name": "pmbench", "memory": size + (size >> 3), "mode": "native", "vcpus": THREADS, "workload": workload}
    return Scenario.model_validate({"seed": 1, "warmup": "50%", "host": host, "vm": [vm]})


@cache
def run(variant: str, slower: float) -> Found:
    """Simulate a variant."""
    outcome = simulate(scenario(variant, slower))
    (vm,) = outcome.vms
    a_second = slower * outcome.frequency / (vm.finish - vm.start)
    promoted = vm.figures.named("numa_balancing").get("pgpromote_success", 0)
    return Found(vm.counters["accesses"] * a_second, promoted * PAGE * a_second / 1e6)


def fit_scale(target: float) -> float:
    """Return how many times the accesses that base makes here are a target, to one in a hundred."""
    slower = 15.0
    for _ in range(6):
        found = run("base", slower).accesses
        if abs(found / target - 1) < 0.01:
            break
        slower = round(slower * target / found, 3)
    return slower


def predict() -> Report:
    """Predict what each variant makes of the machine, base's accesses given."""
    base = measured()[0]
    slower = fit_scale(float(base["pmbench_accesses_per_s"]))
    found = {variant: run(variant, slower) for variant in VARIANTS}
    claims = []
    for variant, (accesses, promoted) in found.items():
        row = row_of(variant)
        there = [float(row[name]) if row else None for name in ("pmbench_accesses_per_s", "promotion_MB_per_s")]
        fitted = variant == "base"
        kind: Any = "fit" if fitted else "prediction"
        claims.append(Claim(f"{variant}: accesses/s", accesses, there[0], 0.01 if fitted else None, kind=kind))
        claims.append(Claim(f"{variant}: promoted, MB/s", promoted, there[1], None))
    pairs = _pairs()
    if pairs:
        agree = sum(found[slow].accesses < found[fast].accesses for slow, fast in pairs)
        claims.append(Claim("order of the variants, pairs that agree", agree, len(pairs), 0.0))
    return Report(
        title="pmbench on DRAM and persistent memory, by how pages are promoted",
        source="Huang Ying, memory tiering: hot page selection (2022): a 2-socket server with Optane PMem",
        fitted={"accesses of the machine over simulated ones": Fit(slower, "", "numa_tiering22.csv", "base")},
        claims=tuple(claims),
        details={
            "scale": f"memory 1/{SHRUNK}; a second of the machine is {1000 * slower / SHRUNK:.2f} ms",
            "guesses": f"{SET >> 30} GiB in all, half of it in DRAM; rate limits of "
            + " and ".join(f"{limit / 1e6:,.0f} MB/s" for limit in _LIMITS),
            "left out": "threads of one process, prefetch, several loads at once, two sockets",
        },
    )


def _pairs() -> list[tuple[str, str]]:
    """Return the pairs of variants that were measured, the slower first."""
    rates = {name: float(row["pmbench_accesses_per_s"]) for name in VARIANTS if (row := row_of(name))}
    return [(slow, fast) for slow in rates for fast in rates if rates[slow] < rates[fast]]
