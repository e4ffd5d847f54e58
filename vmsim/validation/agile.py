"""Page walks of eight programs under nested and shadow paging, from those of the native run (Agile Paging, ISCA 2016).

The paper gives the cycles of page walks as a share of ideal execution time. Its programs are not to be had; the stream
of `bhargava` stands for them: 2 MiB regions of the program's footprint by Zipf's law, a page of the region, four lines
of the page (the median of what was fitted there). Ideal time is taken to be 24 cycles a line: its eight words, for each
an access in three instructions, a cycle each; data come through the caches, their latency hidden. The exponent is
fitted to the native column (B). The other columns are then predicted as ratios to B.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from math import exp, log
from typing import Any, Final

from vmsim.base.progress import status_line
from vmsim.base.units import PAGE
from vmsim.engine.simulation import Simulation
from vmsim.engine.warm import warm
from vmsim.scenario import Scenario
from vmsim.validation.bhargava import Regions
from vmsim.validation.report import NOTHING, Claim, Fit, Report

__all__ = ["FOOTPRINTS", "MODES", "fit", "measured", "predict", "walk_share"]

FOOTPRINTS: Final = {
    "memcached": 75 << 30,
    "canneal": 780 << 20,
    "astar": 350 << 20,
    "gcc": 886 << 20,
    "graph500": 73 << 30,
    "mcf": 1740 << 20,
    "tigr": 610 << 20,
    "dedup": 1434 << 20,
}
"""Bytes, whole 2 MiB regions: the paper's table of workloads, from memory; not looked up."""
MODES: Final = {"B": "native", "N": "ept", "S": "shadow", "A": "agile"}
"""Paging modes by the paper's letters."""
_SHADOWED: Final = ("S", "A")
_BAND: Final = 0.25
_JUDGED: Final = ("N", "S")
_CLOSE: Final = 0.02  # the fit's tolerance, of the share in B
_LINES: Final = 4
_MOST: Final = 8.0  # exponent: one region takes nearly all accesses
_TABLES: Final = 1 << 21  # bytes that a table of level 1 maps


def measured() -> dict[tuple[str, str], float]:
    """Return the per cent of ideal time in page walks with 4 KiB pages, by program and letter."""
    text = files("vmsim.validation").joinpath("data/agile16_fig5.csv").read_text()
    return {
        (row["workload"], row["config"].removeprefix("4K:")): float(row["pagewalk_pct"])
        for row in csv.DictReader(text.splitlines())
    }


@cache
def _machine() -> Scenario:
    return Scenario.from_toml(files("vmsim.validation").joinpath("agile.toml").read_text(), source="agile.toml")


def walk_share(letter: str, footprint: int, exponent: float, *, machine: Scenario | None = None) -> float:
    """Simulate a stream and return the per cent of ideal time in page walks.

    Parameters
    ----------
    letter : str
        Of the paging mode (`MODES`).
    footprint : int
        Bytes.
    exponent : float
        How the regions' likelihood falls with their rank.
    machine : Scenario, optional
        In place of the study's.
    """
    machine = machine or _machine()
    tables = footprint // _TABLES
    scenario = machine.replace(
        **{
            "vm.workload.footprint": footprint,
            "vm.memory": footprint + (tables + (64 << 8)) * PAGE,
            "host.memory": footprint + (4 * tables + (256 << 8)) * PAGE,
        }
    ).with_mode(MODES[letter])
    if letter in _SHADOWED:
        scenario = scenario.replace(**{"vm.shadow.limit": max(1024, tables + 128)})
    workload: Any = scenario.vms[0].workload
    stream = Regions(size=footprint, runs=workload.accesses, exponent=exponent, seed=scenario.seed, lines=_LINES)
    vm = Simulation(scenario, streams=[stream]).run().vms[0]
    return 100 * (vm.cycles["walk_guest"] + vm.cycles["walk_nested"]) / vm.cycles["compute"]


def fit(share: Callable[[float], float], target: float) -> tuple[float, float]:
    """Return the exponent from 0 to 8 with which `share` comes within 2 % of `target`, or nearest to it, and the share.

    The share falls as the exponent grows, so the root lies between two tries; each next one is where a straight line
    through their logarithms meets the target, or half-way where that has stopped to help.
    """
    low, high = 0.5, _MOST / 2
    ends = {at: log(max(share(at), 1e-9) / target) for at in (low, high)}
    while ends[low] < 0 < low:
        low, high = 0.0, low
        ends[low] = log(max(share(low), 1e-9) / target)
    while ends[high] > 0 and high < _MOST:
        low, high = high, _MOST
        ends[high] = log(max(share(high), 1e-9) / target)
    best = min(ends, key=lambda at: abs(ends[at]))
    for turn in range(16):
        if abs(ends[best]) < _CLOSE or ends[low] <= 0 or ends[high] >= 0:
            break
        at = (low + high) / 2 if turn % 3 == 2 else low + (high - low) * ends[low] / (ends[low] - ends[high])
        ends[at] = log(max(share(at), 1e-9) / target)
        low, high = (at, high) if ends[at] > 0 else (low, at)
        best = min(best, at, key=lambda each: abs(ends[each]))
    return best, target * exp(ends[best])


def predict(programs: Sequence[str] = tuple(FOOTPRINTS), *, changes: Mapping[str, Any] = NOTHING) -> Report:
    """Predict the ratios of page walks to the native run's.

    Parameters
    ----------
    programs : sequence of str, optional
        Which of the paper's.
    changes : mapping of str to object, optional
        Other values at some keys of the study's scenario, as of `Scenario.replace`. The exponent is fitted with them.
    """
    table = measured()
    machine = _machine().replace(**changes)
    fitted: dict[str, Fit] = {}
    claims: list[Claim] = []
    with status_line() as say:
        say("compiling")
        warm(machine.cpu, ("shadow", "agile"))
        for program in programs:
            there, size = table[program, "B"], FOOTPRINTS[program]

            def native(exponent: float, size: int = size, program: str = program) -> float:
                say(f"{program}: fitting B, exponent {exponent:.2f}")
                return walk_share("B", size, exponent, machine=machine)

            exponent, base = fit(native, there)
            found = f"{base:.1f} % of ideal time, measured {there} %"
            fitted[f"{program}, exponent"] = Fit(exponent, "", "agile16_fig5.csv", f"column B of {program}", found)
            for letter, mode in MODES.items():
                if letter == "B":
                    continue
                say(f"{program}: {mode}")
                theirs = table.get((program, letter))
                ratio = walk_share(letter, size, exponent, machine=machine) / base
                band = _BAND if letter in _JUDGED else None
                claims.append(Claim(f"{program} {letter}/B", ratio, theirs and theirs / there, band))
    return Report(
        title="Page walks under nested (N), shadow (S) and agile (A) paging, over those of the native run (B)",
        source="Gandhi, Hill and Swift, ISCA 2016, figure 5: Xeon E5-2430 (sandy-bridge)",
        fitted=fitted,
        claims=tuple(claims),
        details={
            "agreement": "N/B and S/B 25 %; A/B has no band and is only shown: the stream leaves its tables alone",
            "footprints": "the paper's, from memory: "
            + ", ".join(f"{program} {FOOTPRINTS[program] >> 20} MiB" for program in programs),
            "not predicted": "the cycles of VM traps: what the programs do to their page tables is not known",
        },
    )
