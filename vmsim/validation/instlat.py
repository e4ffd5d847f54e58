"""What address translation adds to a load, by footprint (InstLatx64): predicted from a CPU's preset alone.

InstLatx64 chases pointers 64 bytes apart in two orders: at random over the whole buffer (`Random_Full`), and at
random within a page, page after page (`Page_Random`). Both find their data in the same caches; only the first changes
page with each load, so their difference is what translation costs. Both chases are simulated, and the difference
taken as in the measurement. Nothing is fitted: the presets' cache latencies are InstLatx64's own.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.resources import files
from math import log2
from typing import Any

from vmsim.engine.run import simulate
from vmsim.scenario import Scenario
from vmsim.validation.report import NOTHING, Claim, Report

__all__ = ["CPUS", "Curve", "knee", "measured", "predict"]

CPUS = ("sandy-bridge", "skylake-x")
LEVELS = (8, 16, 32)
"""Cycles at which a curve has a knee: the least difference that counts, and its doubles."""
_ORDERS = {"full": "Random_Full", "page": "Page_Random"}
_LINE = 64
_BAND, _SLACK = 0.3, 8  # what counts as agreement: a share of the measured, or cycles
_FEWEST, _MOST = 1 << 16, 1 << 19  # accesses before counting, and as many counted

Curve = dict[int, float]
"""Cycles by footprint in KiB, in ascending order."""


def measured(cpu: str) -> dict[str, Curve]:
    """Return the measured load latency by order (full, page) at a stride of 64 bytes."""
    text = files("vmsim.validation").joinpath("data/instlat_load_latency.csv").read_text()
    rows = [row for row in csv.DictReader(text.splitlines()) if (row["preset"], row["stride"]) == (cpu, str(_LINE))]
    return {
        order: {int(row["size_KB"]): float(row["cycles"]) for row in rows if row["test"] == test}
        for order, test in _ORDERS.items()
    }


def simulated(cpu: str, order: str, kib: int, changes: Mapping[str, Any] = NOTHING) -> float:
    """Return the cycles of a load in a chase over `kib` KiB, after as many loads that are not counted."""
    accesses = min(max((kib << 10) // _LINE, _FEWEST), _MOST)
    scenario = Scenario.from_toml(files("vmsim.validation").joinpath("instlat.toml").read_text()).replace(
        **{
            "warmup": accesses,
            "host.cpu": cpu,
            "vm.workload.order": order,
            "vm.workload.footprint": f"{kib}KiB",
            "vm.workload.accesses": 2 * accesses,
            **changes,
        }
    )
    vm = simulate(scenario).vms[0]
    return sum(vm.cycles.values()) / vm.counters["accesses"]


def knee(curve: Curve, cycles: float) -> float | None:
    """Return the footprint (KiB) from which on a curve stays at `cycles` or above, between two points by their line.

    The line is straight over the logarithm of the footprint. None: the curve ends below.
    """
    points = list(curve.items())
    below = [place for place, (_, value) in enumerate(points) if value < cycles]
    if not below:
        return float(points[0][0])
    if below[-1] == len(points) - 1:
        return None
    (left, low), (right, high) = points[below[-1] : below[-1] + 2]
    return float(left * (right / left) ** ((cycles - low) / (high - low)))


def predict(cpus: Sequence[str] = CPUS, *, largest: int | None = None, changes: Mapping[str, Any] = NOTHING) -> Report:
    """Predict the translation cost of a load at each footprint beyond the reach of the first TLB.

    Parameters
    ----------
    cpus : sequence of str, optional
        Presets with measurements.
    largest : int, optional
        Leave out footprints of more KiB.
    changes : mapping of str to object, optional
        Other values at some keys of the study's scenario, as of `Scenario.replace`.
    """
    claims: list[Claim] = []
    curves = []
    details = {
        "differences": "Random_Full minus Page_Random, cycles of a load",
        "knees": f"where it comes to {', '.join(map(str, LEVELS))} cycles for good, as octaves: log2 of KiB",
        "not counted": "footprints that the first TLB holds, where both differences are 0",
    }
    for cpu in cpus:
        loads = measured(cpu)
        reach = _reach(cpu)
        sizes = [kib for kib in loads["full"] if kib > reach and (largest is None or kib <= largest)]
        ours = {order: {kib: simulated(cpu, order, kib, changes) for kib in sizes} for order in _ORDERS}
        there, here = ({kib: pair["full"][kib] - pair["page"][kib] for kib in sizes} for pair in (loads, ours))
        claims += [Claim(f"{cpu} {_size(kib)}", here[kib], there[kib], _BAND, slack=_SLACK) for kib in sizes]
        for cycles in LEVELS:
            was, comes = knee(there, cycles), knee(here, cycles)
            if was and comes:
                claims.append(Claim(f"{cpu} reaches {cycles} cycles, octave", log2(comes), log2(was), 0.0, slack=1))
            elif was or comes:
                which = "measured" if was else "simulated"
                details[f"{cpu} reaches {cycles} cycles"] = f"only the {which} curve comes so far"
        curves += [
            {"cpu": cpu, "kib": kib, "measured": there[kib], "predicted": here[kib], "slack": slack}
            for kib, slack in ((kib, max(_SLACK, _BAND * abs(there[kib]))) for kib in sizes)
        ]
    return Report(
        title="Translation cost of a load by footprint, 4 KiB pages, stride 64 bytes",
        source="InstLatx64: Core i7-2600 (sandy-bridge), Core i9-7900X (skylake-x)",
        fitted={"nothing": "the presets as they are"},
        claims=tuple(claims),
        details=details,
        curves=curves,
    )


def _reach(cpu: str) -> int:
    """Return the KiB that the first TLB of `cpu` translates."""
    from vmsim.scenario import load_cpu

    array = load_cpu(cpu).tlb.l1["4K"]
    return 4 * array.entries if array else 0


def _size(kib: int) -> str:
    return f"{kib >> 10} MiB" if kib % 1024 == 0 else f"{kib} KiB"
