"""How far balloons may grow: the largest share of the VMs' memory that may be in them."""

from __future__ import annotations

from typing import Any, Final

from vmsim.advice.asked import Asked, last_that_holds
from vmsim.advice.result import Advice, interval
from vmsim.advice.slower import CAUSES, cost_of, times
from vmsim.base.errors import InputError
from vmsim.base.units import PAGE_BYTES, format_size
from vmsim.scenario import Scenario

__all__ = ["answer"]

_PARTS: Final = 32
_START: Final = 16
_FIGURES: Final = {**CAUSES, "ballooned": "frames.balloon", "balloon_target": "frames.balloon_target"}


def answer(asked: Asked) -> Advice:
    """Find the largest 32nd of each VM's memory that its balloon may take.

    A size holds if the guest gives as much, all VMs finish, and the time per access of the VM that loses most, over
    that without a balloon, has its interval within the limit.
    """
    import pandas as pd

    factor = asked.factor()
    scenario = asked.scenario
    _check(scenario)
    results = cost_of(asked.simulate(list=[_sizes(scenario, 0)], figures=_FIGURES))
    if not results["finished"].all():
        raise InputError("balloon: a VM does not run to its end without a balloon; the host is too small for it.")
    rows: dict[int, dict[str, Any]] = {}

    def holds(parts: int) -> bool:
        here = cost_of(asked.simulate(list=[_sizes(scenario, parts)], figures=_FIGURES))
        target = here["balloon_target"].sum()
        given = float(here["ballooned"].sum() / target) if target else 0.0
        rows[parts] = {"share": parts / _PARTS, "given": given, **times(here, results)}
        return bool(rows[parts]["high"] <= factor and (here["ballooned"] >= here["balloon_target"]).all())

    last = last_that_holds(holds, _START, _PARTS - 1)
    table = pd.DataFrame([rows[parts] for parts in sorted(rows)])
    table.insert(5, "holds", [parts <= last for parts in sorted(rows)])
    sure = f"95 % over {asked.seeds} seeds; limit {factor:g}"
    facts: dict[str, Any] = {"share": last / _PARTS, "limit": factor}
    if last:
        sizes = {group.name: _size(group.memory, last, group.balloon.page) for group in scenario.vm if group.count}
        facts |= {"sizes": sizes, **{key: rows[last][key] for key in ("times", "low", "high")}}
        named = ", ".join(f"{format_size(size)} of {name}" for name, size in sizes.items())
        text = f"Up to {last / _PARTS:.0%} of the memory ({named}): {_told(rows[last])} ({sure})."
    else:
        text = f"No balloon ({sure})."
    if last < _PARTS - 1:
        text += f" With {(last + 1) / _PARTS:.0%}: {_told(rows[last + 1])}."
    return Advice("balloon", text, table, asked.out, facts)


def _check(scenario: Scenario) -> None:
    for group in scenario.vm:
        if group.count and (group.balloon.max or group.balloon.schedule):
            key = "max" if group.balloon.max else "schedule"
            text = "the question sets the size of balloons itself; leave it out"
            raise InputError(f"vm.{group.name}.balloon.{key}: {text}.")


def _sizes(scenario: Scenario, parts: int) -> dict[str, int]:
    return {
        f"vm.{group.name}.balloon.size": _size(group.memory, parts, group.balloon.page)
        for group in scenario.vm
        if group.count
    }


def _size(memory: int, parts: int, page: Any) -> int:
    unit = PAGE_BYTES[page]
    return int(memory * parts // _PARTS // unit * unit)


def _told(row: dict[str, Any]) -> str:
    if row["times"] == float("inf"):
        return "a VM does not run to its end"
    if row["given"] < 1:
        return f"the guests give {row['given']:.0%} of what is asked for"
    mostly = f", mostly {row['mostly']}" if row["mostly"] and row["times"] > 1 else ""
    return f"the slowest takes {interval(row['times'], row['low'], row['high'])} times as long as without{mostly}"
