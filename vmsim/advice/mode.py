"""Which paging mode: the modes in the order of their cycles per access, and how sure the first is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from vmsim.advice.asked import Asked
from vmsim.advice.result import Advice, interval
from vmsim.api import modes_of
from vmsim.base.errors import InputError, listed
from vmsim.scenario import Scenario
from vmsim.scenario.modes import mode_named

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["answer"]

_NO_VM: Final = "native"


def answer(asked: Asked) -> Advice:
    """Rank the modes by the cycles of all VMs over their accesses.

    The difference of two modes is that of each seed, so that what a seed does to both of them cancels out. The first
    is sure where the interval of its difference from the next is above 0.
    """
    from vmsim.sweeps.statistics import summarize

    modes, notes = _candidates(asked.scenario, asked.options.get("modes"))
    results = asked.simulate({"mode": modes}, names={"mode": "vm.mode"})
    ended = results.groupby("mode", sort=False)["finished"].all()
    for mode in modes:
        if not ended[mode]:
            notes.append(f"{mode} is left out: a VM did not run to its end.")
    results = results[results["mode"].map(ended)]
    if results.empty:
        raise InputError("In no mode did all VMs run to their end: the host has too little memory for them.")
    sums = results.groupby(["mode", "replicate"], sort=False)[["total_cycles", "accesses"]].sum().reset_index()
    sums["cycles_per_access"] = sums["total_cycles"] / sums["accesses"]
    order = list(sums.groupby("mode", sort=False)["cycles_per_access"].mean().sort_values(kind="stable").index)
    table = summarize(sums, "mode", "cycles_per_access").set_index("mode").loc[order].reset_index()
    table = table.rename(columns={"mean": "cycles_per_access"})[["mode", "cycles_per_access", "low", "high"]]
    more = _differences(sums, order)
    table["more"], table["more_low"], table["more_high"] = more["mean"], more["low"], more["high"]
    text, sure = _answer(table, asked.seeds)
    best = table.iloc[0]
    facts = {"mode": best["mode"], "sure": sure, "cycles_per_access": float(best["cycles_per_access"])}
    facts |= {"low": float(best["low"]), "high": float(best["high"])}
    return Advice("mode", text, table, asked.out, facts, tuple(notes))


def _candidates(scenario: Scenario, given: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the modes to try, and why others are not."""
    known = modes_of(scenario)
    if given is not None:
        for mode in given:
            mode_named(mode)
            if mode not in known:
                had = ", ".join(known)
                raise InputError(f"modes: {scenario.cpu.name} cannot run these VMs in mode {mode}; it has {had}.")
        if not given or len({*given}) < len(given):
            raise InputError("modes: expected each mode once, and one at least.")
    modes: list[str] = []
    notes: list[str] = []
    first: InputError | None = None
    for mode in known if given is None else given:
        if mode == _NO_VM and given is None:
            continue
        try:
            scenario.with_mode(mode)
        except InputError as error:
            first = first or error
            notes.append(f"{mode} is left out: {error}")
        else:
            modes.append(mode)
    if not modes and first:
        raise first
    return modes, notes


def _differences(sums: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Return how many cycles more than the first each mode takes, seed by seed."""
    from vmsim.sweeps.statistics import summarize

    wide = sums.pivot(index="replicate", columns="mode", values="cycles_per_access")[order]
    more = wide.sub(wide[order[0]], axis=0).melt(value_name="more")
    return summarize(more, "mode", "more")


def _answer(table: pd.DataFrame, seeds: int) -> tuple[str, bool | None]:
    """Return the sentence, and whether the first is sure; None: there is no other."""
    best = table.iloc[0]
    cycles = interval(best["cycles_per_access"], best["low"], best["high"], unit="cycles per access")
    if len(table) == 1:
        return f"{best['mode']} is the only mode that there is: {cycles}, 95 % over {seeds} seeds.", None
    second = table.iloc[1]
    more = interval(second["more"], second["more_low"], second["more_high"])
    if second["more_low"] > 0:
        text = f"{best['mode']}: {cycles}; {second['mode']}, the next, takes {more} more"
        return f"{text} (95 % over {seeds} seeds).", True
    equal = [row["mode"] for _, row in table.iloc[1:].iterrows() if row["more_low"] <= 0]
    text = f"{best['mode']} has the fewest, {cycles}, but is not surely better than {listed(equal)}: "
    return f"{text}{second['mode']} takes {more} more (95 % over {seeds} seeds).", False
