"""About how long a sweep will take: from points of it that were timed, or from a rehearsal of one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from vmsim.base.errors import InputError
from vmsim.base.files import open_regular
from vmsim.base.progress import in_words
from vmsim.scenario import Scenario, toml
from vmsim.sweeps.executors import cores
from vmsim.sweeps.place import TIMINGS
from vmsim.sweeps.plan import Plan
from vmsim.sweeps.points import accesses_of, scenario_of
from vmsim.sweeps.shard import Shard
from vmsim.sweeps.sweep import Sweep
from vmsim.sweeps.tables import recorded_points

__all__ = ["Estimate", "estimate", "missing_points"]

_LONGEST_REHEARSAL: Final = 500_000
Floats = np.ndarray[Any, np.dtype[np.float64]]
_LAST_BYTES: Final = 1 << 20


class Estimate(NamedTuple):
    """A guess.

    Attributes
    ----------
    seconds : float
        Until all points are done, compiling apart.
    jobs : int
        Processes that it is for.
    source : str
        What it rests on.
    """

    seconds: float
    jobs: int
    source: str

    @property
    def told(self) -> str:
        """The time in words."""
        return in_words(self.seconds)


def missing_points(sweep: Sweep, out: Path, shard: Shard | None = None) -> Plan:
    """Return the points of a sweep, or of a shard of it, that a store lacks; it need not be there, and is only read.

    What an interrupted sweep has in its journal is in the store too.

    Raises
    ------
    InputError
        A point's scenario cannot be, or a part of the store is damaged.
    """
    return Plan.of(sweep, recorded_points(out), shard=shard)


def estimate(plan: Plan, out: Path, jobs: int | None) -> Estimate | None:
    """Return about how long a plan takes, or None if nothing is to be done."""
    if not len(plan):
        return None
    jobs = min(jobs or cores(), len(plan))
    timed = _timed(out / TIMINGS)
    source = f"from {len(timed):,} points that were timed"
    if not timed:
        timed, source = _rehearsed(plan), "from a rehearsal"
    seconds = _seconds(plan.points["cost"], timed)
    return Estimate(max(float(seconds.sum()) / jobs, float(seconds.max())), jobs, source)


def _seconds(costs: Floats, timed: list[tuple[float, float]]) -> Floats:
    """Return the seconds of points from their accesses: so much for each point, and so much for each access."""
    known, seconds = np.array(timed).T
    spread = known - known.mean()
    slope = max(0.0, float(spread @ seconds) / float(spread @ spread)) if spread.any() else 0.0
    fixed = float(seconds.mean() - slope * known.mean())
    if fixed < 0 or not spread.any():
        fixed, slope = 0.0, float(seconds.sum() / max(1.0, known.sum()))
    predicted: Floats = fixed + slope * costs
    return predicted


def _timed(path: Path) -> list[tuple[float, float]]:
    """Return accesses and seconds of the last points that were timed."""
    try:
        with open_regular(path, "table of times", links=False) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_BYTES))
            lines = file.read().decode("ascii", "replace").splitlines()
    except (InputError, OSError):
        return []
    return list(_numbers(lines))


def _numbers(lines: list[str]) -> Iterator[tuple[float, float]]:
    for line in lines:
        fields = line.split(",")
        if len(fields) == 3 and len(fields[0]) == 64:
            try:
                pair = float(fields[1]), float(fields[2])
            except ValueError:
                continue  # a line torn by a driver that was killed
            if all(np.isfinite(pair)):
                yield pair


def _rehearsed(plan: Plan) -> list[tuple[float, float]]:
    """Simulate the shortest and the longest point, cut short where they are long."""
    from vmsim.engine.run import simulate
    from vmsim.engine.warm import warm_for

    timed = []
    for place in dict.fromkeys([int(np.argmin(plan.points["cost"])), int(np.argmax(plan.points["cost"]))]):
        batch = plan.batch([place])
        scenario = scenario_of(toml.parse(batch.base, "scenario"), Path(batch.folder), batch.jobs[0].settings)
        scenario = scenario.replace(**dict(_cut(scenario)))
        warm_for(scenario)
        before = time.perf_counter()
        simulate(scenario)
        cost = sum(accesses_of(vm.workload, scenario.folder) for vm in scenario.vms)
        timed.append((float(cost), time.perf_counter() - before))
    return timed


def _cut(scenario: Scenario) -> Iterator[tuple[str, int]]:
    for number, group in enumerate(scenario.vm):
        key = group.workload.lasts
        if key and group.workload.files():
            yield f"vm.{number}.workload.{key}", 1
        elif key:
            count, cost = getattr(group.workload, key), accesses_of(group.workload, scenario.folder)
            yield f"vm.{number}.workload.{key}", max(1, count * _LONGEST_REHEARSAL // max(cost, _LONGEST_REHEARSAL))
