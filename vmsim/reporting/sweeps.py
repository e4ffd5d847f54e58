"""The sections of a sweep: its results by each of its parameters, and all of them as a table."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import pandas as pd

from vmsim.plotting.sweeps import axes_of, values_of
from vmsim.reporting.charts import Series, lines
from vmsim.reporting.parts import Section, figure, table
from vmsim.reporting.runs import line_looks

__all__ = ["sections_of"]

_FIRST: Final = (
    "cycles_per_access",
    "translation_cycles_per_access",
    "management_cycles_per_access",
    "fault_p99_cycles",
    "exits",
    "walk_refs",
)
_MOST: Final = 24  # charts
_LINES: Final = 12


def sections_of(results: pd.DataFrame) -> list[Section]:
    """Return the sections of a report."""
    names = [name for name in axes_of(results) if results[name].nunique() > 1]
    there = values_of(results)
    values: list[str] = [name for name in _FIRST if name in there and results[name].nunique() > 1] or there[:1]
    made = []
    if names:
        made.append(Section("results", "Results by parameter", _charts(results, names, values)))
    parameters = pd.DataFrame(
        [
            {"parameter": name, "values": ", ".join(map(_text, dict.fromkeys(results[name])))}
            for name in axes_of(results) or ["mode"]
        ]
    )
    made.append(Section("parameters", "Parameters", table(parameters, "Parameters")))
    columns = [*dict.fromkeys([*axes_of(results), "replicate", "vm", "mode", *values])]
    made.append(Section("table", "All results", table(results[columns], "All results")))
    return made


def _charts(results: pd.DataFrame, names: list[str], values: list[str]) -> str:
    """Return a chart for each result and parameter, of which one is chosen; without scripts all are there."""
    made: list[str] = []
    options: list[str] = []
    for value in values:
        for x in names:
            if len(made) == _MOST:
                break
            others = sorted((name for name in names if name != x), key=lambda name: results[name].nunique())
            by = next((name for name in others if results[name].nunique() <= _LINES), None)
            made.append(_chart(results, value, x, by))
            options.append(f"{value.replace('_', ' ')} by {x}")
    choices = "".join(f"<option>{escape(option)}</option>" for option in options)
    choose = f'<label class="choose" hidden>Show <select>{choices}</select></label>' if len(made) > 1 else ""
    return f"<div>{choose}{''.join(made)}</div>"


def _chart(results: pd.DataFrame, value: str, x: str, by: str | None) -> str:
    keys = [name for name in (by, x) if name]
    means: pd.DataFrame = results.groupby(keys, sort=False, as_index=False)[[value]].mean()
    numbers = pd.api.types.is_numeric_dtype(means[x]) and not pd.api.types.is_bool_dtype(means[x])
    found: list[Any] = sorted(means[x].unique()) if numbers else list(dict.fromkeys(means[x]))
    log = numbers and found[0] > 0 and found[-1] / found[0] >= 20
    places = {each: float(each) if numbers else float(place) for place, each in enumerate(found)}
    groups = means.groupby(by, sort=False) if by else [("", means)]
    looks = line_looks([_text(name) for name, _ in groups])
    series = [
        Series(
            _text(name),
            sorted((places[at], float(y)) for at, y in zip(rows[x], rows[value], strict=True)),
            *looks[_text(name)],
        )
        for name, rows in groups
    ]
    label = value.replace("_", " ")
    marks = {place: _text(each) for each, place in places.items()}
    chart = lines(series, x, label, f"{label} by {x}", log_x=log, names=marks)
    rest = f", a line for each value of {by}" if by else ""
    caption = f"{label[0].upper()}{label[1:]} by {x}{rest}: means over all else, VMs and replicates included."
    return figure(chart, caption, means, [(each.name, each.colour, each.dash) for each in series] if by else ())


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
