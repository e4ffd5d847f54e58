"""The smallest page pool: min, max and batch that keep faults nearly as short as a pool that never runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from vmsim.advice.asked import Asked
from vmsim.advice.result import Advice, interval
from vmsim.base.errors import InputError
from vmsim.base.units import PAGE, format_size
from vmsim.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["answer"]

_SIZES: Final = (4, 16, 64, 256, 1024)
"""Pages tried for min and for batch."""
_NAMES: Final = {"min": "host.pool.min", "batch": "host.pool.batch", "max": "host.pool.max"}
_FIGURES: Final = {"faults": "fault_latency.count", "spent": "fault_latency.cycles"}
_FAULTS: Final = 200
"""Of a VM at least: the wait for the first fill of a pool without bounds is then beyond the 99th percentile."""
_KEYS: Final = ["min", "batch", "max"]


def answer(asked: Asked) -> Advice:
    """Try pools, and choose the smallest `max` that holds.

    Each is as small as its minimum and batch allow: ``max = min + batch``. Two measures: the 99th percentile of
    faults of the VM that has the longest, and the mean of all faults; each over that with the same seed and a pool for
    all of a VM's memory, means without the waits for the first fill. A pool holds if the intervals of both over
    the seeds are within the limit.
    """
    factor = asked.factor()
    all_of_it = _unbounded(asked.scenario)
    rows = [{"min": 1, "batch": all_of_it, "max": all_of_it}]
    rows += [
        {"min": least, "batch": batch, "max": least + batch}
        for least in _SIZES
        for batch in _SIZES
        if least + batch <= all_of_it // 2
    ]
    own = asked.scenario.host.pool
    if (mine := {"min": own.min, "batch": own.batch, "max": own.max}) not in rows:
        rows.append(mine)
    results = asked.simulate(names=_NAMES, list=rows, figures=_FIGURES)
    if not results["finished"].all():
        raise InputError("A VM did not run to its end: the host has too little memory, whatever its pools.")
    table = _compared(results, all_of_it, asked.scenario)
    table["holds"] = table[["high", "mean_high"]].max(axis=1) <= factor
    table = table.sort_values(["max", "mean_times", "times", "min"], kind="stable").reset_index(drop=True)
    text, facts = _answer(table[table["max"] != all_of_it], factor, asked.seeds, mine)
    return Advice("pool", text, table, asked.out, facts)


def _compared(results: pd.DataFrame, all_of_it: int, scenario: Scenario) -> pd.DataFrame:
    """Return how many times as long faults take as without bounds: the 99th percentile, and the mean."""
    from vmsim.sweeps.statistics import summarize

    counts = {"fault_p99_cycles": "max", "pool_wait_cycles": "sum", "faults": "sum", "spent": "sum"}
    each = results.groupby([*_KEYS, "replicate"], sort=False)[list(counts)].agg(counts).reset_index()
    free = each[each["max"] == all_of_it].set_index("replicate")
    faults = results.loc[results["max"] == all_of_it, "faults"].max()
    if faults < _FAULTS:
        text = f"at most {faults:.0f} faults of a VM take pages of a pool after the warm-up, and p99 needs {_FAULTS}"
        raise InputError(f'pool: {text}; expected VMs with populate = "lazy" that touch more new pages.')
    without = (free["spent"] - free["pool_wait_cycles"]) / free["faults"]
    each["spent"] -= _first_fills(each, scenario)
    each["times"] = each["fault_p99_cycles"] / each["replicate"].map(free["fault_p99_cycles"])
    each["mean_times"] = each["spent"] / each["faults"] / each["replicate"].map(without)
    table = summarize(each, _KEYS, "times").rename(columns={"mean": "times"})
    mean = summarize(each, _KEYS, "mean_times").rename(columns={"mean": "mean_times", "high": "mean_high"})
    spent = each.groupby(_KEYS, sort=False)["pool_wait_cycles"].mean().reset_index()
    table = table.merge(mean[[*_KEYS, "mean_times", "mean_high"]], on=_KEYS).merge(spent, on=_KEYS)
    return table[[*_KEYS, "pool_wait_cycles", "times", "low", "high", "mean_times", "mean_high"]]


def _first_fills(each: pd.DataFrame, scenario: Scenario) -> pd.Series[float]:
    """Return how long VMs wait for the first refill of their pools, which begin empty, however large they are."""
    if str(scenario.warmup) != "0%":
        return each["pool_wait_cycles"] * 0.0
    cost = scenario.cpu.cost
    pages = each[["batch", "max"]].min(axis=1)
    fill = cost.message + cost.grant_fixed + pages * (cost.grant_page + cost.host_zero)
    waits: pd.Series[float] = (fill * float(len(scenario.vms))).clip(upper=each["pool_wait_cycles"])
    return waits


def _unbounded(scenario: Scenario) -> int:
    """Return the pages of a pool that never runs out.

    Raises
    ------
    InputError
        There are no pools, VMs have some of their own, or the host has no room for such ones.
    """
    if scenario.host.pool.supply == "fault":
        raise InputError('host.pool.supply: with "fault" there is no pool; leave it out.')
    for group in scenario.vm:
        if group.pool is not None and group.count:
            raise InputError(f"vm.{group.name}.pool: the question varies host.pool, of all VMs; leave it out.")
    largest = max(vm.memory for vm in scenario.vms)
    pages = largest // PAGE + largest // PAGE // 256 + 64  # and their tables
    needed = (pages * len(scenario.vms) + scenario.watermarks.high) * PAGE
    if scenario.host.memory < needed:
        rounded = format_size(-(-needed >> 20) << 20)
        raise InputError(
            f"host.memory: found {format_size(scenario.host.memory)}, expected at least {rounded}: all memory of the "
            "VMs at once, for a pool that never runs out to compare with."
        )
    return pages


def _answer(table: pd.DataFrame, factor: float, seeds: int, own: dict[str, int]) -> tuple[str, dict[str, Any]]:
    holding = table[table["holds"]]
    is_own = (table[_KEYS] == [own[key] for key in _KEYS]).all(axis=1)
    mine = table[is_own].iloc[0]
    now = f"As it is (min {own['min']}, batch {own['batch']}, max {own['max']}) it is "
    now += interval(mine["times"], mine["low"], mine["high"]) + "."
    if holding.empty:
        least = table.sort_values("times", kind="stable").iloc[0]
        text = f"No pool of up to {table['max'].max():,} pages keeps p99 and mean of faults within {factor:g} times "
        text += "those of one without bounds; the least p99 is "
        text += f"{interval(least['times'], least['low'], least['high'])} "
        text += f"(95 % over {seeds} seeds), with min {least['min']}, batch {least['batch']}, max {least['max']}."
        return text, {"min": None, "batch": None, "max": None, "limit": factor}
    best = holding.iloc[0]
    text = f"min = {best['min']}, batch = {best['batch']}, max = {best['max']}: p99 of faults is "
    text += f"{interval(best['times'], best['low'], best['high'])} times that of a pool without bounds, "
    text += f"their mean {interval(best['mean_times'], 0, 0)} times (95 % over {seeds} seeds; limit {factor:g})."
    facts: dict[str, Any] = {key: int(best[key]) for key in _KEYS}
    facts |= {"times": float(best["times"]), "low": float(best["low"]), "high": float(best["high"]), "limit": factor}
    same = all(best[key] == own[key] for key in _KEYS)
    return text if same else f"{text} {now}", facts
