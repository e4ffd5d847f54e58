"""What free page reporting takes from a guest that faults in huge pages and frees them in a loop (A. Duyck, 2020).

will-it-scale's page_fault1 maps 128 MiB, writes to each page, and unmaps it, in a guest of 32 GiB on a Xeon E5-2630 v3
(haswell, 2.4 GHz), with huge pages in guest and host. The rate without reporting is fitted (cycles of the loop around
each write). With the patches but without reporting nothing is different here; with it, blocks that happen to be free
when a pass begins are given to the host, and cost a violation when they are used again.

All sizes and the delay are a 16th: a pass finds the same share, and comes as often in relation.
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
from vmsim.scenario import Scenario
from vmsim.validation.report import Claim, Fit, Report
from vmsim.workloads import Chunk, Event, Kind, Op
from vmsim.workloads.stream import PAGE, Regions

__all__ = ["PageFaults", "measured", "predict", "rate"]

_BASE: Final = 0x10_0000_0000
_SCALE: Final = 16
_REGION: Final = (128 << 20) // _SCALE // PAGE
_HERTZ: Final = 2_400_000_000
_DELAY: Final = f"{2000 // _SCALE}ms"
_PASSES: Final = 24  # that a run lasts for; of the first half some find memory that was never reported


def measured(test: str = "page_fault1_thp") -> dict[tuple[str, int], float]:
    """Return the published iterations a second of a test by variant and tasks."""
    text = files("vmsim.validation").joinpath("data/free_page_reporting20.csv").read_text()
    return {
        (row["variant"].removesuffix(" linux-next-20191219"), int(row["tasks"])): float(row[f"{test}_iter_per_s"])
        for row in csv.DictReader(text.splitlines())
    }


@dataclass
class PageFaults:
    """page_fault1: a region mapped, each of its pages written to, and unmapped, round after round."""

    rounds: int
    threads: int = 1
    name: str = "page_fault1"

    @property
    def accesses(self) -> int:
        """Writes of all rounds."""
        return self.rounds * _REGION

    def footprint(self) -> Regions:
        """Return the region."""
        return np.array([_BASE], np.int64), np.array([_REGION * PAGE], np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read the rounds."""
        address = _BASE + PAGE * np.arange(_REGION, dtype=np.int64)
        count, kind = np.ones(_REGION, np.int32), np.full(_REGION, Kind.WRITE, np.uint8)
        size = _REGION * PAGE
        events = (Event(0, Op.MAP, 1, _BASE, size, 3), Event(_REGION, Op.UNMAP, 1, _BASE, size, 0))
        for _ in range(self.rounds):
            yield Chunk(address, count, kind, events)

    def digest(self) -> str:
        """Return nothing: it is no workload of a scenario."""
        return ""


@cache
def rate(compute: int, order: int | None = None, passes: int = _PASSES) -> float:
    """Return writes a second, with so many cycles around each; with an order, free blocks are reported."""
    balloon: dict[str, Any] = {}
    if order is not None:
        balloon = {"reporting": True, "reporting_order": order, "reporting_delay": _DELAY}
    vm = {
        "name": "vm",
        "memory": (32 << 30) // _SCALE,
        "mode": "ept",
        "guest_page": "2M",
        "host_page": "2M",
        "balloon": balloon,
        "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1, "compute": compute},
    }
    host = {"cpu": "haswell", "cpu_override": {"frequency": "2.4GHz"}, "memory": (40 << 30) // _SCALE, "cores": 1}
    warm = 0.5
    rounds = round(passes * 2 / _SCALE * 1.01e6 / _REGION)
    scenario = Scenario.from_tables({"warmup": f"{warm:.0%}", "host": host, "vm": [vm]})
    only = Simulation(scenario, streams=[PageFaults(rounds)]).run().vms[0]
    return only.counters["accesses"] * _HERTZ / (only.finish - only.start)


def predict(passes: int = _PASSES) -> Report:
    """Predict how the rate changes.

    Parameters
    ----------
    passes : int, optional
        Passes of the reporting that a run lasts for.
    """
    table = measured()
    base = table["baseline", 1]
    empty = _HERTZ / rate(0, passes=passes)
    compute = round(_HERTZ / base - empty)
    off = rate(compute, passes=passes)
    changes = {order: 100 * (rate(compute, order, passes) / off - 1) for order in (9, 10)}
    without = []  # with the patches and no reporting nothing is different here
    for test, name in (("page_fault1_thp", ""), ("page_fault2", "page_fault2, ")):
        for tasks, several in ((1, "one task"), (16, "16 tasks")):
            rows = measured(test)
            published = 100 * (rows["patches, reporting off", tasks] / rows["baseline", tasks] - 1)
            without.append(Claim(f"patches, reporting off, {name}{several}", 0.0, published, 0.0, slack=1.0))
    return Report(
        title="page_fault1 with huge pages in a guest of 32 GiB: change of its rate by free page reporting, per cent",
        source="A. Duyck, [PATCH v16 0/9] mm / virtio: free page reporting, 2020: Xeon E5-2630 v3",
        fitted={
            "cycles around each write": Fit(
                compute,
                "cycles",
                "free_page_reporting20.csv",
                "page_fault1 of the baseline, one task",
                f"{off:,.0f} writes a second of {base:,.0f}",
            )
        },
        claims=(
            *without,
            Claim("reporting of order 9, one task", changes[9], None, None),
            Claim("reporting of order 10, one task", changes[10], None, None),
        ),
        details={"simulated": f"a {_SCALE}th of memory, region and delay, on haswell at 2.4 GHz"},
    )
