"""Memory management in VMware ESX (C. Waldspurger, OSDI 2002): balloons, pages shared, and the idle memory tax.

*Figure 2*: dbench in a VM of 256 MB whose balloon leaves it x MB, against one of x MB. What a ballooned guest has less
is what its kernel keeps for each page that is in the balloon: a `struct page`, 64 bytes in Linux 2.4 for x86. What that
much less memory costs the measured curve of native sizes says. No row of ballooned guests is used.

*Figure 4*: so many VMs that run the same. Parts of a VM's pages are as others of its own, and as some of each other VM;
these two, and how many different ones there are, are fitted on one and on two VMs. From then on all VMs share the
common ones: what is shared stays, and what is reclaimed grows as a copy fewer is needed for each VM.

*Figure 7*: two VMs of 256 MB with equal shares, of which one is idle, in a constant amount of memory. `host.esx` says
what each gets, from what the paper has for the pages in use and for both parts together.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Final

import numpy as np

from vmsim.host.policies.esx import Claim as Part
from vmsim.host.policies.esx import allot
from vmsim.host.policies.esx_table import Esx
from vmsim.validation.report import Claim, Finding, Fit, Report

__all__ = ["balloon_cost", "measured", "parts", "predict", "sharing"]

_MB: Final = 256  # pages
_VM: Final = 256  # MB
_STRUCT_PAGE: Final = 64 / 4096
_MOST: Final = 10  # VMs of figure 4


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


def sharing(vms: int, one: tuple[float, float], two: tuple[float, float]) -> tuple[float, float]:
    """Return the percent of the memory of VMs that run the same which is shared, and which is reclaimed.

    Parameters
    ----------
    one, two : (float, float)
        Both of one VM, and of two.
    """
    if vms == 1:
        return one
    shared = two[0]
    copies = 2 * (shared - two[1])  # different pages that are shared, in percent of a VM
    return shared, shared - copies / vms


def parts(tax: float, used: tuple[float, float], total: float) -> list[float]:
    """Return the MB that two VMs with equal shares get of a total, with so many MB in use, at a tax in percent."""
    claims = [Part(1000, each * _MB, 0, _VM * _MB) for each in used]
    return [pages / _MB for pages in allot(claims, int(total * _MB), tax)]


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
    one, two = ((rows["shared_pct"][at], rows["reclaimed_pct"][at]) for at in (0, 1))
    for vms in range(3, _MOST + 1):
        shared, reclaimed = sharing(vms, one, two)
        claims.append(Claim(f"fig. 4: {vms} VMs, shared, %", shared, None, None, note="no row is at hand"))
        claims.append(Claim(f"fig. 4: {vms} VMs, reclaimed, %", reclaimed, None, None, note="no row is at hand"))

    tables = {row["x"].split()[0]: tuple(map(float, row["value"].split("/"))) for row in measured(7)}
    total, used = sum(tables["tau=0"]), (tables["tau=0.75"][0], tables["tau=0.75"][1])
    for number, (part, there) in enumerate(zip(parts(0, used, total), tables["tau=0"], strict=True), 1):
        claims.append(Claim(f"fig. 7: no tax, VM {number}, MB", part, there, 0.0, slack=3.0))
    for number, part in enumerate(parts(75, used, total), 1):
        claims.append(Claim(f"fig. 7: tax of 75 %, VM {number}, MB", part, None, None, note="no row is at hand"))

    table = Esx()
    found = f"{table.high:g}/{table.soft:g}/{table.hard:g}/{table.low:g} %, tax {table.idle_tax:g} %"
    expected = "6/4/2/1 %, tax 75 %"
    return Report(
        title="Memory management of VMware ESX",
        source="C. Waldspurger, Memory Resource Management in VMware ESX Server, OSDI 2002",
        fitted={
            "fig. 4, different pages that are shared": Fit(
                2 * (two[0] - two[1]),
                "% of a VM",
                "waldspurger02.csv",
                "one and two VMs of figure 4",
                f"one VM {one[0]:g} % shared, {one[1]:g} % reclaimed; two {two[0]:g} %, {two[1]:g} %",
            ),
        },
        claims=tuple(claims),
        findings=(
            Finding(
                "thresholds and tax, unless a scenario says others", found, expected, found == expected, "conformance"
            ),
        ),
        details={
            "struct page": "64 bytes in Linux 2.4 on x86: from memory",
            "fig. 7": "pages in use (10.0 and 198.1 MB) and both parts together (357.9 MB) are the paper's",
        },
    )
