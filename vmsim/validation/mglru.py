"""What programs gain by Linux's generations over its two lists (Y. Zhao, "Multi-Gen LRU Framework", 2022).

The programs are not to be had. A stream that touches its memory as their benchmarks' names say stands for each: in
passes, at random, or some of it far more often. Each runs twice on a host that has four fifths of the memory that it
needs, once with each of the two. Nothing is fitted.

There are no pages of files on this host, and no large pages that go to a swap device, which the measured machines had.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import Any, Final

from vmsim.engine.run import simulate
from vmsim.scenario import Scenario
from vmsim.validation.report import Claim, Report

__all__ = ["STREAMS", "gain", "measured", "predict", "scenario"]

_SLACK: Final = 5.0  # points beyond the interval that agree

# By what is in the benchmark's name; the first that fits.
STREAMS: Final[dict[str, dict[str, Any]]] = {
    "sort": {"kind": "sequential", "stride": 4096},
    "sequential": {"kind": "sequential", "stride": 4096},
    "random": {"kind": "uniform"},
    "exponential": {"kind": "zipf", "exponent": 0.99},
    "medium concurrency": {"kind": "zipf", "exponent": 0.99},
}


def measured() -> list[dict[str, str]]:
    """Return the rows of the table."""
    text = files("vmsim.validation").joinpath("data/mglru22.csv").read_text(encoding="utf-8")
    return [*csv.DictReader(text.splitlines())]


def stream_of(condition: str) -> str:
    """Return the name of the stream that stands for a benchmark."""
    return next(name for name in STREAMS if name in condition)


def scenario(stream: str, policy: str) -> Scenario:
    """Return a program that does not fit into its host's memory."""
    workload = STREAMS[stream] | {"footprint": "12MiB", "accesses": 40_000, "writes": 0.3, "compute": 5000}
    host = {
        "cpu": "skylake-x",
        "memory": "10MiB",
        "swap": {"device": "nvme", "size": "64MiB", "policy": policy},
    }
    vm = {"name": "a", "memory": "16MiB", "mode": "native", "workload": workload}
    return Scenario.model_validate({"seed": 1, "warmup": "25%", "host": host, "vm": [vm]})


@cache
def cycles(stream: str, policy: str) -> int:
    """Return how long it takes, its first quarter left out."""
    vm = simulate(scenario(stream, policy)).vms[0]
    return int(vm.finish - vm.start)


def gain(stream: str, metric: str) -> float:
    """Return what the generations gain, in percent: of the time, or in operations a second."""
    two, many = cycles(stream, "two-list"), cycles(stream, "mglru")
    return 100 * (1 - many / two) if metric == "less wall time" else 100 * (two / many - 1)


def predict() -> Report:
    """Compare the gains with the intervals measured, the sign first."""
    claims = []
    for row in measured():
        stream = stream_of(row["condition"])
        low, high = float(row["ci_low_pct"]), float(row["ci_high_pct"])
        made = gain(stream, row["metric"])
        name = f"{row['application']}, {row['condition']}: {row['metric']}, %"
        claims.append(Claim(name, made, (low + high) / 2, None, inside=(low - _SLACK, high + _SLACK)))
        claims.append(Claim(f"{row['application']}, {row['condition']}: a gain", float(made > 0), 1.0, 0.0))
    return Report(
        title="What programs gain by multi-generational LRU",
        source="Y. Zhao, Multi-Gen LRU Framework, cover letter (2022): 95 % confidence intervals of an independent lab",
        fitted={},
        claims=tuple(claims),
        details={
            "streams": "sort and sequential: in passes; random: uniform; others: Zipf's law. 12 MiB on 10 MiB",
            "left out": "pages of files, large pages (THP), concurrency",
        },
    )
