"""Which free blocks a guest should report: the order that gives the host most memory back, at a price that holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vmsim.advice.asked import Asked
from vmsim.advice.result import Advice, interval
from vmsim.advice.slower import CAUSES, cost_of, times
from vmsim.base.errors import InputError
from vmsim.scenario import Scenario
from vmsim.scenario.balloon import Balloon

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["answer"]

_ORDERS: Final = (0, 2, 4, 6, 8, 9)  # 9 is Linux's: pageblock_order (mm/page_reporting.c)
_SAMPLES: Final = 250
"""Of the memory of a run, where the scenario asks for none."""
_SELDOM: Final = "1s"  # before it is known how long a run is; never would leave a figure out
_NONE: Final = {
    key: value
    for key, value in Balloon().model_dump(mode="json").items()
    if key in ("reporting", "reporting_order", "reporting_delay")
}
"""A guest that reports nothing: with keys of reports it would be refused, for they have no effect."""
_FIGURES: Final = {**CAUSES, "resident": "memory.mean_resident"}


def answer(asked: Asked) -> Advice:
    """Try orders, and choose the one with which the host's memory behind the guests is least.

    The memory is the mean over time of all VMs', each over that without reports of the same seed. An order holds if the
    time per access of the VM that loses most, over that without reports, has its interval within the limit.
    """
    import pandas as pd

    factor = asked.factor()
    scenario = asked.scenario
    every = _checked(asked)
    own = {group.balloon.reporting_order for group in scenario.vm if group.count and group.balloon.reporting}
    orders = sorted({*_ORDERS, *own})
    base = cost_of(asked.simulate(list=[_point(scenario, None, every)], figures=_FIGURES))
    rows = []
    for order in orders:
        here = cost_of(asked.simulate(list=[_point(scenario, order, every)], figures=_FIGURES))
        rows.append({"order": order, **_held(here, base), **times(here, base)})
    table = pd.DataFrame(rows)
    table["holds"] = table["high"] <= factor
    text, facts = _answer(table, factor, asked.seeds)
    return Advice("reporting", text, table, asked.out, facts)


def _checked(asked: Asked) -> str:
    """Return how often memory is noted: as the scenario says, or so often that a run has hundreds of samples.

    Raises
    ------
    InputError
        Runs end badly, leave their beginning out, or end before anything is reported.
    """
    scenario = asked.scenario
    if str(scenario.warmup) != "0%":
        raise InputError("warmup: means over time are of whole runs, and the question compares them; leave it out.")
    plain = asked.simulate(list=[_point(scenario, None, _SELDOM)], figures=_FIGURES)
    if not plain["finished"].all():
        raise InputError("reporting: a VM does not run to its end without reports; the host is too small for it.")
    frequency = scenario.cpu.frequency
    longest = int((plain["finish_cycle"] - plain["start_cycle"]).max())
    for group in scenario.vm:
        delay = group.balloon.reporting_delay
        if group.count and delay.cycles(frequency) >= longest:
            text = f"found {delay}, expected less than {longest / frequency:.3g} s, which the VMs run: a guest reports "
            raise InputError(f"vm.{group.name}.balloon.reporting_delay: {text}that long after something was freed.")
    if scenario.host.samples.amount > 0:
        return str(scenario.host.samples)
    return f"{max(1, round(longest / _SAMPLES * 1e9 / frequency))}ns"


def _point(scenario: Scenario, order: int | None, every: str) -> dict[str, Any]:
    """Return the keys of a point: reports of an order of all VMs, or none."""
    keys: dict[str, Any] = {"host.samples": every}
    for group in scenario.vm:
        if group.count:
            told = dict(_NONE)
            if order is not None:
                told |= {"reporting": True, "reporting_order": order}
                told |= {"reporting_delay": str(group.balloon.reporting_delay)}
            keys |= {f"vm.{group.name}.balloon.{key}": value for key, value in told.items()}
    return keys


def _held(here: pd.DataFrame, base: pd.DataFrame) -> dict[str, float]:
    """Return the share of the memory without reports that the VMs hold, with its interval."""
    from vmsim.sweeps.statistics import summarize

    sums, without = (each.groupby("replicate")["resident"].sum() for each in (here, base))
    share = (sums / without).rename("memory").reset_index().assign(all=0)
    (row,) = summarize(share, "all", "memory").to_dict("records")
    return {"memory": row["mean"], "memory_low": row["low"], "memory_high": row["high"]}


def _answer(table: pd.DataFrame, factor: float, seeds: int) -> tuple[str, dict[str, Any]]:
    sure = f"95 % over {seeds} seeds; limit {factor:g}"
    useful = table[table["holds"] & (table["memory_high"] < 1)]
    if useful.empty:
        least = table.sort_values("memory", kind="stable").iloc[0]
        text = f"Report nothing ({sure}). With order {least['order']} {_told(least)}."
        return text, {"order": None, "limit": factor}
    best = useful.sort_values(["memory", "order"], ascending=[True, False], kind="stable").iloc[0]
    text = f"Order {best['order']}: {_told(best)} ({sure})."
    names = ("memory", "memory_low", "memory_high", "times", "low", "high")
    facts = {"order": int(best["order"]), "limit": factor, **{key: float(best[key]) for key in names}}
    if best["order"] != _ORDERS[-1]:
        text += f" With Linux's, {_ORDERS[-1]}, {_told(table[table['order'] == _ORDERS[-1]].iloc[0])}."
    return text, facts


def _told(row: Any) -> str:
    if row["times"] == float("inf"):
        return "a VM does not run to its end"
    held = interval(row["memory"] * 100, row["memory_low"] * 100, row["memory_high"] * 100, unit="%")
    slower = interval(row["times"], row["low"], row["high"])
    return f"the VMs hold {held} of the memory that they hold without, and the slowest takes {slower} times as long"
