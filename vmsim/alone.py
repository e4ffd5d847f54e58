"""Each VM of a scenario alone on its host, and how much slower it is together with the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from vmsim.base.progress import Wanted, showing
from vmsim.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

    from vmsim.record.result import Result

__all__ = ["COLUMNS", "fairness", "only", "slowdown", "slowdowns"]

COLUMNS: Final = {
    "vm": "str",
    "vm_group": "str",
    "together_cycles_per_access": "float64",
    "alone_cycles_per_access": "float64",
    "slowdown": "float64",
}
"""Columns of the table that `slowdown` gives, with their dtypes."""


def only(scenario: Scenario, index: int) -> Scenario:
    """Return a scenario with the VM of a number as the only one: its group's other VMs and all others are left out."""
    ours = scenario.vms[index].group
    return scenario.replace(**{f"vm.{group.name}.count": int(group.name == ours) for group in scenario.vm})


def slowdowns(
    scenario: Scenario, result: Result, *, check: bool = False, progress: Wanted = None
) -> Iterator[dict[str, Any]]:
    """Simulate each VM of a scenario alone, and yield how much slower it is than that in a result of all.

    Yields
    ------
    dict
        By `COLUMNS`. Time is from a VM's start to its end, waits included, over the accesses that it has made; the
        warm-up is left out of both.
    """
    from vmsim.engine.run import simulate
    from vmsim.engine.streams import stream_of

    for vm, row in zip(scenario.vms, result.rows("summary"), strict=True):
        alone = only(scenario, vm.index)
        with showing(f"{vm.name} alone", progress) as show:
            (found,) = simulate(alone, check=check, progress=show, streams=[stream_of(scenario, vm)]).vms
        here = _each(row["finish_cycle"] - row["start_cycle"], row["accesses"])
        there = _each(found.finish - found.start, found.counters["accesses"])
        values = vm.name, vm.group, here, there, here / there if there else 0.0
        yield dict(zip(COLUMNS, values, strict=True))


def slowdown(
    scenario: Any, *, result: Result | None = None, check: bool = False, progress: Wanted = None, **settings: Any
) -> pd.DataFrame:
    """Say how much slower each VM is together with the others than alone on the same host.

    Parameters
    ----------
    scenario : Scenario, mapping or path
        As of `vmsim.run`.
    result : Result, optional
        Of the scenario with all its VMs, so that it need not be simulated again.
    check, progress, **settings
        As of `vmsim.run`.

    Returns
    -------
    DataFrame
        A row for each VM: vm, vm_group, together_cycles_per_access, alone_cycles_per_access, slowdown. Its ``attrs``
        have ``fairness``: Jain's index of what is left of each VM's speed (``jain``), and the least over the most
        (``least_over_most``).

    Raises
    ------
    InputError
        As of `vmsim.run`.

    Examples
    --------
    >>> vm = {"name": "a", "memory": "64MiB", "mode": "ept", "count": 2}
    >>> vm["workload"] = {"kind": "uniform", "footprint": "1MiB", "accesses": 1000}
    >>> table = slowdown({"host": {"cores": 1}, "vm": [vm]})
    >>> bool((table["slowdown"] > 1).all())
    True
    """
    import pandas as pd

    from vmsim.api import run, scenario_of

    scenario = scenario_of(scenario, **settings)
    together = result or run(scenario, check=check, progress=progress)
    rows = list(slowdowns(scenario, together, check=check, progress=progress))
    table = pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in COLUMNS.items()})
    table.attrs["fairness"] = fairness(rows)
    return table


def fairness(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return Jain's index, and the least over the most, of what is left of each VM's speed."""
    from vmsim.analysis.fairness import jain, least_over_most
    from vmsim.analysis.fairness import progress as left

    parts = left([row["slowdown"] for row in rows])
    return {"jain": jain(parts), "least_over_most": least_over_most(parts)}


def _each(cycles: int, accesses: int) -> float:
    return cycles / accesses if accesses else 0.0
