"""Memory management in VMware ESX (C. Waldspurger, OSDI 2002): balloons, pages shared, and the idle memory tax.

*Figure 2*: dbench in a VM of 256 MB whose balloon leaves it x MB, against one of x MB. What a ballooned guest has less
is what its kernel keeps for each page that is in the balloon: a `struct page`, 64 bytes in Linux 2.4 for x86. What that
much less memory costs the measured curve of native sizes says. No row of ballooned guests is used.

*Figure 4*: so many VMs that run the same. Of a VM's pages some are those of an image that all have, some hold zeros,
and the rest is its own; both shares are fitted on two VMs. VMs of 32 MB then read their pages, and the host's ksmd
(`host.ksm`, which stands for ESX's scans) has equal ones share a frame. One VM is predicted, and three to ten.

*Figure 7*: two VMs of 256 MB with equal shares, of which one is idle, in a constant amount of memory (`idle_tax`).
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
from vmsim.host.policies.esx_table import Esx
from vmsim.scenario import Scenario
from vmsim.validation.idle_tax import allotted
from vmsim.validation.report import Claim, Finding, Fit, Kind, Report
from vmsim.workloads import Chunk, Event, Op
from vmsim.workloads import Kind as Access
from vmsim.workloads.stream import PAGE, Regions

__all__ = ["Reading", "balloon_cost", "measured", "predict", "sharing"]

_MB: Final = 256  # pages
_VM: Final = 256  # MB
_STRUCT_PAGE: Final = 64 / 4096
_MOST: Final = 10  # VMs of figure 4
_BASE: Final = 0x10_0000_0000
_PAGES: Final = 8192  # of each of them
_WAIT: Final = 60_000_000  # ns for each VM, in which ksmd looks at all pages more than twice


def measured(figure: int) -> list[dict[str, str]]:
    """Return the rows of a figure."""
    text = files("vmsim.validation").joinpath("data/waldspurger02.csv").read_text()
    return [row for row in csv.DictReader(text.splitlines()) if row["fig"] == str(figure)]


def balloon_cost(size: float) -> float:
    """Return by how many percent dbench is slower in a VM that a balloon has left so many MB than in one of them."""
    native = {float(row["x"]): float(row["value"]) for row in measured(2) if row["series"] == "native"}
    sizes, speeds = np.array([*native]), np.array([*native.values()])
    less = size - (_VM - size) * _STRUCT_PAGE
    at = max(0, min(len(sizes) - 2, int(np.searchsorted(sizes, size)) - 1))
    slope = (speeds[at + 1] - speeds[at]) / (sizes[at + 1] - sizes[at])
    return float(100 * slope * (size - less) / native[size])


@dataclass
class Reading:
    """A program that reads each of its pages, and then waits."""

    pages: int
    nanoseconds: int
    threads: int = 1
    name: str = "reading"

    @property
    def accesses(self) -> int:
        """Reads, and a last one after the wait."""
        return self.pages + 1

    def footprint(self) -> Regions:
        """Return a page: none is read before the start."""
        return np.array([_BASE], np.int64), np.array([PAGE], np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read the reads."""
        address = _BASE + PAGE * (np.arange(self.accesses, dtype=np.int64) % self.pages)
        events = (
            Event(0, Op.MAP, 1, _BASE, self.pages * PAGE, 1),
            Event(self.pages, Op.IO, 1, _BASE, PAGE, self.nanoseconds),
        )
        kinds = np.full(self.accesses, Access.READ, np.uint8)
        yield Chunk(address, np.ones(self.accesses, np.int32), kinds, events)

    def digest(self) -> str:
        """Return nothing: it is no workload of a scenario."""
        return ""


@cache
def sharing(vms: int, image: float, unique: float) -> tuple[float, float]:
    """Return the percent of the memory of VMs that run the same which is shared, and which is reclaimed.

    Parameters
    ----------
    vms : int
    image, unique : float
        Shares of a VM's pages that all VMs have, and that no other has; the rest holds zeros.
    """
    vm: dict[str, Any] = {
        "name": "vm",
        "count": vms,
        "memory": 2 * _PAGES * PAGE,
        "mode": "ept",
        "content": {"image": "same", "image_share": image, "unique_share": unique},
        "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1},
    }
    ksm = {"run": 1, "pages_to_scan": 100_000, "sleep_millisecs": 10, "smart_scan": False, "use_zero_pages": True}
    host = {"cpu": "skylake-x", "cores": vms, "memory": (vms + 1) * 4 * _PAGES * PAGE, "ksm": ksm}
    scenario = Scenario.from_tables({"host": host, "vm": [vm]})
    done = Simulation(scenario, streams=[Reading(_PAGES, vms * _WAIT) for _ in range(vms)]).run().vms[0]
    found = done.figures.named("ksmd")
    return 100 * found["sharing"] / (vms * _PAGES), 100 * found["saved"] / (vms * _PAGES)


def _fitted(shared: float, reclaimed: float) -> tuple[float, float]:
    """Return the shares of a VM's pages that all have, and that are its own, with which two VMs have such percents."""
    image, unique = 2 * (shared - reclaimed) / 100, 1 - shared / 100
    for _ in range(2):  # pages are drawn, so that a few more or fewer of either kind are there
        found, saved = sharing(2, image, unique)
        image -= 2 * (found - saved - shared + reclaimed) / 100
        unique += (found - shared) / 100
    return image, unique


def predict() -> Report:
    """Predict figures 2, 4 and 7."""
    series: dict[str, dict[float, float]] = {}
    for row in measured(2):
        series.setdefault(row["series"], {})[float(row["x"])] = float(row["value"])
    claims = []
    for size, speed in series["ballooned"].items():
        cost = 100 * (1 - speed / series["native"][size])
        quantity = f"fig. 2: balloon to {size:g} MB, % of dbench's speed"
        claims.append(Claim(quantity, balloon_cost(size), cost, None, inside=(0.0, 5.0)))

    rows = {row["series"]: tuple(map(float, row["value"].split())) for row in measured(4)}
    shares = [(rows["shared_pct"][at], rows["reclaimed_pct"][at]) for at in (0, 1)]
    image, unique = _fitted(*shares[1])
    for vms in range(1, _MOST + 1):
        plural = "s" if vms > 1 else ""
        made: Kind = "fit" if vms == 2 else "prediction"
        for at, (what, percent) in enumerate(zip(("shared", "reclaimed"), sharing(vms, image, unique), strict=True)):
            there = shares[vms - 1][at] if vms <= len(shares) else None
            note = "" if there else "no row is at hand"
            quantity = f"fig. 4: {vms} VM{plural}, {what}, %"
            claims.append(Claim(quantity, percent, there, 0.0, slack=4.0, note=note, kind=made))

    tables = {row["x"].split()[0]: tuple(map(float, row["value"].split("/"))) for row in measured(7)}
    total, idle = sum(tables["tau=0"]), tables["tau=0.75"][0]
    free, taxed = (allotted(tax, idle, total) for tax in (0.0, 75.0))
    for number, there in enumerate(tables["tau=0"]):
        claims.append(Claim(f"fig. 7: no tax, VM {number + 1}, MB", free[number], there, 0.0, slack=3.0))
    for number in range(2):
        quantity = f"fig. 7: tax of 75 %, VM {number + 1}, MB"
        claims.append(Claim(quantity, taxed[number], None, None, note="no row is at hand"))

    table = Esx()
    found = f"{table.high:g}/{table.soft:g}/{table.hard:g}/{table.low:g} %, tax {table.idle_tax:g} %"
    expected = "6/4/2/1 %, tax 75 %"
    return Report(
        title="Memory management of VMware ESX",
        source="C. Waldspurger, Memory Resource Management in VMware ESX Server, OSDI 2002",
        fitted={
            "fig. 4, pages that all VMs have": Fit(100 * image, "%", "waldspurger02.csv", "two VMs of figure 4"),
            "fig. 4, pages that are a VM's own": Fit(100 * unique, "%", "waldspurger02.csv", "two VMs of figure 4"),
        },
        claims=tuple(claims),
        findings=(
            Finding(
                "thresholds and tax, unless a scenario says others", found, expected, found == expected, "conformance"
            ),
        ),
        details={
            "struct page": "64 bytes in Linux 2.4 on x86: from memory",
            "fig. 7": "pages in use (10.0 and 198.1 MB) and both parts together (357.9 MB) are the paper's; the policy "
            f"finds {taxed.idle_used:.1f} and {taxed.busy_used:.1f} MB in use",
        },
    )
