"""Pre-copy of guests that do nothing: what a migration's first round sends, and what it need not (QEMU; L. Li, 2016).

QEMU's migration thread looks at each page of the guest in turn: one of zeros is told of by a word, any other is sent
(migration/ram.c, save_zero_page). An idle guest writes to nothing meanwhile, so that there is no second round. What a
page of zeros takes is fitted to one row, the pages a second of a guest of 16 GiB that had only run its BIOS, sent to
its own machine. Predicted are that guest's pages and its time, and the time of another one, of 8 GiB, over a link of 10
Gbit/s: without free page hints, and with them, for which no row is at hand.

What the guests hold is simulated, a 16th of it: a program touches so many pages and then waits, while its VM's dirty
log is read. Frames that are backed are sent, the others are zeros; hinted ones are neither looked at nor sent. The
first guest touched 283 pages, which is a row; of the second the same data say that 7 GiB could be ballooned, so that
all else, 1 GiB, is taken for used.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

import numpy as np

from vmsim.engine.simulation import Simulation
from vmsim.record.outcome import VmOutcome
from vmsim.scenario import Scenario
from vmsim.validation.report import Claim, Fit, Report
from vmsim.workloads import Chunk, Event, Kind, Op
from vmsim.workloads.stream import PAGE, Regions

__all__ = ["Copied", "Idle", "copied", "measured", "predict", "seconds"]

_FILE: Final = "live_migration.csv"
_STEPS: Final = "balloon_steps17.csv"
_BASE: Final = 0x10_0000_0000
_SCALE: Final = 16
_BAND: Final = 0.2
_GIB: Final = 1 << 30
_LINK: Final = 1.25e9  # bytes a second: 10 Gbit/s
_WAIT: Final = 40_000_000  # ns, in which the log is read twice


def measured() -> dict[str, float]:
    """Return the published numbers of the two guests, by quantity; ``idle`` is the second one's time in ms."""
    data = files("vmsim.validation").joinpath("data")
    rows = [*csv.DictReader(data.joinpath(_FILE).read_text(encoding="utf-8").splitlines())]
    found = {row["quantity"]: float(row["value"]) for row in rows if row["experiment"].startswith("QEMU")}
    steps = csv.DictReader(data.joinpath(_STEPS).read_text(encoding="utf-8").splitlines())
    return found | {"idle": next(float(row["ms"]) for row in steps if row["step"] == "total time")}


@dataclass
class Idle:
    """A program that writes to so many pages, and then waits."""

    pages: int
    threads: int = 1
    name: str = "idle"

    @property
    def accesses(self) -> int:
        """Writes, and a last one after the wait."""
        return self.pages + 1

    def footprint(self) -> Regions:
        """Return the region."""
        return np.array([_BASE], np.int64), np.array([self.pages * PAGE], np.int64)

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read the writes."""
        address = _BASE + PAGE * (np.arange(self.accesses, dtype=np.int64) % self.pages)
        wait = Event(self.pages, Op.IO, 1, _BASE, PAGE, _WAIT)
        kinds = np.full(self.accesses, Kind.WRITE, np.uint8)
        yield Chunk(address, np.ones(self.accesses, np.int32), kinds, (wait,))

    def digest(self) -> str:
        """Return nothing: it is no workload of a scenario."""
        return ""


class Copied(NamedTuple):
    """Pages of a migration's first round."""

    zero: int
    normal: int
    skipped: int


@cache
def copied(memory: int, touched: int, *, hinting: bool = False) -> Copied:
    """Simulate a guest that has touched so many pages, and return what a migration finds in all of its memory.

    Where the guest hints, its program has touched its pages before the log begins.
    """
    pages = max(1, touched // _SCALE)
    normal = _run(memory // _SCALE, pages).memory["guest"]
    skipped = 0
    if hinting:
        skipped = _run(memory // _SCALE, pages, hinting=True).figures.named("dirty_log")["hinted"]
    zero = memory // _SCALE // PAGE - normal - skipped
    return Copied(zero * _SCALE, normal * _SCALE, skipped * _SCALE)


def _run(memory: int, pages: int, *, hinting: bool = False) -> VmOutcome:
    vm: dict[str, Any] = {
        "name": "vm",
        "memory": memory,
        "mode": "ept",
        "populate": "eager" if hinting else "lazy",
        "dirty_log": {"method": "pml", "every": "10ms"},
        "balloon": {"hinting": True} if hinting else {},
        "workload": {"kind": "uniform", "footprint": PAGE, "accesses": 1},
    }
    scenario = Scenario.from_tables({"host": {"cpu": "cascade-lake", "memory": 2 * memory, "cores": 1}, "vm": [vm]})
    return Simulation(scenario, streams=[Idle(pages)]).run().vms[0]


def seconds(pages: Copied, zero: float, rate: float) -> float:
    """Return how long a round takes, with so many seconds for a page of zeros and bytes a second of the link."""
    return pages.zero * zero + pages.normal * PAGE / rate


def predict() -> Report:
    """Predict what both guests' migrations take."""
    table = measured()
    zero = 1 / table["rate"]
    bios = copied(16 * _GIB, round(table["normal pages"]))
    idle, hinted = (copied(8 * _GIB, _GIB // PAGE, hinting=hinting) for hinting in (False, True))
    times = {name: 1000 * seconds(pages, zero, _LINK) for name, pages in (("idle", idle), ("hinted", hinted))}
    alone = 1000 * (idle.zero + idle.normal) * zero
    return Report(
        title="Pre-copy of guests that do nothing",
        source="QEMU, a guest that only ran its BIOS (cai-fuqiang, kvm-stats); L. Li, 2016, an idle guest",
        fitted={
            "a page of zeros": Fit(zero * 1e6, "us", _FILE, "pages a second of the guest of 16 GiB"),
        },
        claims=(
            Claim("16 GiB after the BIOS, pages of zeros", bios.zero, table["duplicate (zero) pages"], _BAND),
            Claim("16 GiB after the BIOS, ms", 1000 * seconds(bios, zero, _LINK), table["total time"], _BAND),
            Claim("idle 8 GiB over 10 Gbit/s, ms", times["idle"], table["idle"], _BAND),
            Claim("idle 8 GiB with free page hints, ms", times["hinted"], None, None, note="no row is at hand"),
        ),
        details={
            "simulated": f"a {_SCALE}th of each guest",
            "idle 8 GiB": f"were all of it zeros, {alone:,.0f} ms; 1 GiB is taken for used, {idle.normal:,} pages sent",
        },
    )
