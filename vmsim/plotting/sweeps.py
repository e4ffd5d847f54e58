"""Figures of sweeps: one result by one or two parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize

from vmsim.base.errors import InputError, listed, nearest
from vmsim.plotting.parts import look_of
from vmsim.plotting.plot import Sheet
from vmsim.record.columns import COLUMNS, POINT
from vmsim.sweeps.statistics import summarize

__all__ = ["Chosen", "axes_of", "choose", "heatmap", "lines", "values_of"]

_COLOURS: Final = "cividis"  # even in lightness, and the same to colour-blind readers
_WIDEST: Final = 20  # greatest over least of what is drawn, from which a scale is logarithmic
_MANY: Final = 12  # columns of a heat map whose cells have room for a number
_SUMMARY: Final = COLUMNS["summary"]


class Chosen(NamedTuple):
    """What of a sweep is drawn.

    Attributes
    ----------
    table : DataFrame
        Rows of the points and VMs that were chosen.
    value : str
        The column that is drawn.
    names : tuple of str
        What varies in them, in the order of the sweep.
    """

    table: pd.DataFrame
    value: str
    names: tuple[str, ...]


def axes_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Return which columns of a sweep were varied: those before the VM's name, and the mode if none gives it."""
    names = [str(name) for name in table.columns]
    before = names[: names.index("vm")] if "vm" in names else []
    found = [name for name in before if name not in POINT]
    if "mode" in names and not any(_says_mode(table, [*known, "vm"]) for known in ([], *([name] for name in found))):
        found.append("mode")
    return tuple(found)


def _says_mode(table: pd.DataFrame, known: list[str]) -> bool:
    """Return whether the mode follows from some columns: an axis of another name may set it."""
    return bool(table.groupby(known)["mode"].nunique().le(1).all())


def values_of(table: pd.DataFrame) -> list[str]:
    """Return which columns of a sweep's results can be drawn: numbers that are no parameters."""
    skipped = {*axes_of(table), *POINT}
    return [
        str(name)
        for name in table.columns
        if name not in skipped
        and pd.api.types.is_numeric_dtype(table[name])
        and not pd.api.types.is_bool_dtype(table[name])
    ]


def choose(
    table: pd.DataFrame, *, value: str = "cycles_per_access", vms: Sequence[str] = (), where: Mapping[str, Any] = {}
) -> Chosen:
    """Take some points and VMs of a sweep.

    Raises
    ------
    InputError
        There is no such column, VM or value.
    """
    axes, values = axes_of(table), values_of(table)
    if not axes:
        raise InputError("The table has no parameters that were varied; expected the results of a sweep.")
    if value not in values:
        raise InputError(f"value: there is no result {value!r}. {nearest(value, values)}", key="value")
    for name, wanted in where.items():
        if name not in axes:
            raise InputError(f"where: {name!r} is not varied. {nearest(name, axes)}", key="where")
        there = table[name].map(_text)
        if not (there == _text(wanted)).any():
            found = list(dict.fromkeys(there))
            raise InputError(f"where: {name} has no value {_text(wanted)!r}. {nearest(_text(wanted), found)}")
        table = table[there == _text(wanted)]
    known = list(dict.fromkeys(table["vm"]))
    for vm in vms:
        if vm not in known:
            raise InputError(f"There is no VM {vm!r}. {nearest(vm, known)}", key="vm")
    if vms:
        table = table[table["vm"].isin(vms)]
    return Chosen(table, value, tuple(name for name in axes if table[name].nunique() > 1))


def heatmap(chosen: Chosen, x: str | None, y: str | None, by: str | None) -> Sheet:
    """One result by two parameters: a cell for each pair, a panel for each value of a third."""
    x, y, by = _assigned(chosen, {"x": x, "y": y, "by": by}, least=2)
    assert x
    assert y
    keys = [name for name in (by, y, x) if name]
    means = chosen.table.groupby(keys, sort=False, as_index=False)[chosen.value].agg(["mean", "count"])
    table = means.rename(columns={"mean": chosen.value, "count": "rows"})
    panels = list(dict.fromkeys(table[by])) if by else [None]
    norm = _norm(table[chosen.value])

    def draw(axes: Any) -> None:
        image = None
        for place, ax in enumerate(axes.flat):
            if place >= len(panels):
                ax.set_axis_off()
                continue
            rows = table[table[by] == panels[place]] if by else table
            image = _cells(rows, ax, x, y, chosen.value, norm)
            if by:
                ax.set_title(f"{by} = {_text(panels[place])}")
        bar = axes[0, 0].figure.colorbar(image, ax=list(axes.flat), pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label(_label(chosen.value))

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    return Sheet(table, draw, _caption(chosen, table), rows=rows, columns=columns, share=True, wide=columns > 1)


def lines(chosen: Chosen, x: str | None, y: str | None, by: str | None) -> Sheet:
    """One result by one parameter: a line for each value of another, with confidence intervals of replicates."""
    if y is not None:
        raise InputError("lines: y is the result, which `value` names; x and by are parameters.", key="y")
    x, _, by = _assigned(chosen, {"x": x, "by": by}, least=1)
    assert x
    keys = [name for name in (by, x) if name]
    groups = chosen.table.groupby([*keys, "replicate"], sort=False, as_index=False)
    table = summarize(groups[[chosen.value]].mean(), keys, chosen.value)
    table = table.rename(columns={"mean": chosen.value, "n": "replicates"}).drop(columns="std")
    looks = look_of([_text(name) for name in table[by]] if by else [""])
    places = _places(table[x])

    def draw(axes: Any) -> None:
        ax = axes[0, 0]
        for name, rows in table.groupby(by, sort=False) if by else [("", table)]:
            at = rows[x].map(places)
            rows = rows.assign(at=at).sort_values("at")
            look = looks[_text(name)]
            ax.plot(rows["at"], rows[chosen.value], marker="o", markersize=2.5, label=_text(name), **look)
            if rows["low"].notna().any():
                ax.fill_between(rows["at"], rows["low"], rows["high"], color=look["color"], alpha=0.2, linewidth=0)
        _scale(ax, table[x], places)
        ax.set_xlabel(x)
        ax.set_ylabel(_label(chosen.value))
        low, high = table[chosen.value].min(), table[chosen.value].max()
        if low > 0 and high / low >= _WIDEST:
            ax.set_yscale("log")
        else:
            ax.set_ylim(bottom=min(0.0, low))
        ax.grid(axis="y")
        if by:
            ax.legend(title=by, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)

    return Sheet(table, draw, _caption(chosen, table))


def _assigned(chosen: Chosen, given: dict[str, str | None], *, least: int) -> tuple[str | None, str | None, str | None]:
    """Return which parameter is x, y and by: those that were given, the others in the order of the sweep."""
    for role, name in given.items():
        if name is not None and name not in axes_of(chosen.table):
            raise InputError(f"{role}: {name!r} is not varied. {nearest(name, axes_of(chosen.table))}", key=role)
    taken = [name for name in given.values() if name]
    if len({*taken}) < len(taken):
        raise InputError(f"{listed(given)}: expected different parameters, found {', '.join(taken)}.")
    free = [name for name in chosen.names if name not in taken]
    free.sort(key=lambda name: -chosen.table[name].nunique())  # the most values along x
    roles = {role: name or (free.pop(0) if free else None) for role, name in given.items()}
    if sum(name is not None for name in roles.values()) < least:
        found = ", ".join(chosen.names) or "nothing"
        raise InputError(f"Expected {least} parameters that vary; found {found}. `lines` needs one, `heatmap` two.")
    if free:
        raise InputError(
            f"More is varied than can be drawn at once: {', '.join(free)}. Choose one value of each: "
            f"--where {free[0]}={_text(chosen.table[free[0]].iloc[0])}.",
            key="where",
        )
    return roles["x"], roles.get("y"), roles.get("by")


def _cells(rows: pd.DataFrame, ax: Axes, x: str, y: str, value: str, norm: Normalize) -> Any:
    """Draw a cell for each pair of values, with its number where there is room."""
    xs, ys = _ordered(rows[x]), _ordered(rows[y])
    wide = rows.pivot_table(index=y, columns=x, values=value, sort=False).reindex(index=ys, columns=xs)
    image = ax.imshow(wide.to_numpy(dtype=float), norm=norm, cmap=_COLOURS, aspect="auto", origin="lower")
    for (row, column), number in np.ndenumerate(wide.to_numpy(dtype=float)):
        if not np.isnan(number) and len(xs) <= _MANY:
            ink = "black" if norm(number) > 0.55 else "white"
            ax.text(column, row, _short(number), ha="center", va="center", color=ink)
    texts = [_text(each) for each in xs]
    ax.set_xticks(range(len(xs)), texts, rotation=90 if len("".join(texts)) > 24 else 0)
    ax.set_yticks(range(len(ys)), [_text(each) for each in ys])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    return image


def _norm(values: pd.Series[Any]) -> Normalize:
    low, high = float(values.min()), float(values.max())
    return LogNorm(low, high) if low > 0 and high / low >= _WIDEST else Normalize(low, high if high > low else low + 1)


def _ordered(values: pd.Series[Any]) -> list[Any]:
    """Return the different values: numbers by size, others in the order of the sweep."""
    found = list(dict.fromkeys(values))
    return sorted(found) if pd.api.types.is_numeric_dtype(values) else found


def _places(values: pd.Series[Any]) -> dict[Any, float]:
    """Return where along an axis each value is: numbers at their own, others one after the other."""
    found = _ordered(values)
    numbers = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return {value: float(value) if numbers else float(place) for place, value in enumerate(found)}


def _scale(ax: Axes, values: pd.Series[Any], places: Mapping[Any, float]) -> None:
    """Mark the values along x; logarithmically where they are numbers that go far."""
    found = list(places)
    if pd.api.types.is_numeric_dtype(values) and min(places.values()) > 0:
        if max(places.values()) / min(places.values()) >= _WIDEST:
            ax.set_xscale("log")
    elif pd.api.types.is_numeric_dtype(values):
        return
    texts = [_text(value) for value in found]
    if len(found) <= _MANY:
        ax.set_xticks(list(places.values()), texts, rotation=90 if len("".join(texts)) > 40 else 0)
        ax.minorticks_off()


def _caption(chosen: Chosen, table: pd.DataFrame) -> str:
    vms = chosen.table["vm"].nunique()
    over = [f"{vms} VMs"] if vms > 1 else []
    if chosen.table["replicate"].nunique() > 1:
        over.append(f"{chosen.table['replicate'].nunique()} replicates")
    mean = f" Means over {' and '.join(over)}." if over else ""
    band = " Bands are 95 % confidence intervals." if "low" in table and table["low"].notna().any() else ""
    label = _label(chosen.value)
    return f"{label[0].upper()}{label[1:]} by {listed(chosen.names)}.{mean}{band}"


def _label(value: str) -> str:
    unit = _SUMMARY[value].unit if value in _SUMMARY else ""
    name = value.removesuffix("_cycles").removesuffix("_per_access").replace("_", " ")
    return f"{name} ({unit})" if unit and unit != name else value.replace("_", " ")


def _short(number: float) -> str:
    """Return a number in few characters."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= limit:
            return f"{number / (1e3 if unit == 'k' else limit):.3g}{unit}"
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"


def _text(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
