"""What runs in a worker: a few points in, their rows out."""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from vmsim.base.spawning import attend as begin
from vmsim.scenario import Scenario, toml
from vmsim.sweeps.points import scenario_of

__all__ = ["Batch", "Done", "Job", "attend", "execute", "warm"]


class Job(NamedTuple):
    """One point to simulate: its place in the plan, and what differs from the base scenario."""

    place: int
    settings: dict[str, Any]
    seed: int


class Batch(NamedTuple):
    """Some points of one sweep.

    Attributes
    ----------
    base : str
        The base scenario in TOML.
    folder : str
        Where its relative paths start from.
    jobs : tuple of Job
    figures : tuple of str
        ``component.figure`` of each column after the summary's.
    """

    base: str
    folder: str
    jobs: tuple[Job, ...]
    figures: tuple[str, ...] = ()


class Done(NamedTuple):
    """What came of a point.

    Attributes
    ----------
    place : int
        In the plan.
    rows : list of list
        The summary's columns and then the figures, one row for each VM; empty if it failed.
    failure : str
        Why it failed, as a traceback; empty if it did not.
    seconds : float
        How long it took.
    """

    place: int
    rows: list[list[Any]]
    failure: str
    seconds: float


def execute(batch: Batch) -> list[Done]:
    """Simulate points one after the other. A point that fails does not stop the others."""
    return [_done(batch, job) for job in batch.jobs]


def warm(base: str, folder: str) -> None:
    """Import all that a point needs, and compile its kernels or load them."""
    from vmsim.engine.warm import warm_for

    warm_for(Scenario.from_toml(base, folder=folder))


def attend(base: str, folder: str) -> None:
    """Begin a worker process, and compile what the base scenario needs."""
    begin()
    if base:
        with suppress(Exception):  # the first point meets the same error, and tells it
            warm(base, folder)


def _done(batch: Batch, job: Job) -> Done:
    started = time.perf_counter()
    try:
        rows, failure = _simulated(batch, job), ""
    except Exception as error:
        rows, failure = [], _told(error)
    return Done(job.place, rows, failure, time.perf_counter() - started)


def _simulated(batch: Batch, job: Job) -> list[list[Any]]:
    from vmsim.engine.simulation import Simulation
    from vmsim.engine.warm import warm_for
    from vmsim.record.tables import rows

    settings = {**job.settings, "seed": job.seed}
    scenario = scenario_of(_tables(batch.base), Path(batch.folder), settings)
    warm_for(scenario)
    outcome = Simulation(scenario).run()
    counted: dict[str, dict[str, int]] = {vm.name: {} for vm in outcome.vms}
    for vm, row in outcome.rows() if batch.figures else ():
        if vm in counted:
            counted[vm][f"{row.component}.{row.figure}"] = row.value
    for each in rows("fault_kinds", outcome) if batch.figures else ():
        for column in ("count", "cycles", "p50_cycles", "p99_cycles", "p99_9_cycles"):
            counted[each["vm"]][f"fault_kinds.{each['kind']}.{column}"] = each[column]
    return [
        [*row.values(), *(counted[row["vm"]].get(name, 0) for name in batch.figures)]
        for row in rows("summary", outcome)
    ]


@lru_cache(maxsize=4)
def _tables(base: str) -> dict[str, Any]:
    return toml.parse(base, "scenario")


def _told(error: Exception) -> str:
    """Return a traceback from `_simulated` inwards: the same for every caller."""
    tail = error.__traceback__.tb_next if error.__traceback__ else None
    lines: Sequence[str] = traceback.format_exception(type(error), error, tail)
    return "".join(lines)
