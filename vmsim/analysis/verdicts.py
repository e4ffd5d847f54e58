"""Figures of what was predicted beside what was measured."""

from __future__ import annotations

from typing import Final

import vmsim.analysis.plain_matplotlib  # noqa: F401  (before matplotlib)

# isort: split

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE

__all__ = ["LOOKS", "by_line", "height_of", "verdicts"]

_FAR: Final = 4.0  # half-widths of the band: what is further off is drawn there
_ROW: Final = 0.155
_NAME: Final = 52
LOOKS: Final = {
    "agrees": (PALETTE[0], "o"),
    "conforms": (PALETTE[2], "s"),
    "fitted": ("#888888", "o"),
    "known miss": (PALETTE[1], "D"),
    "miss": (PALETTE[5], "X"),
}
"""Colour and marker of each verdict, from the best to the worst."""


def height_of(rows: int) -> float:
    """Return the inches that a figure of so many quantities needs."""
    return 0.9 + _ROW * max(rows, 2)


def _short(name: str) -> str:
    """Return a name without its middle if it is long: what it ends in tells it from its neighbours."""
    half = _NAME // 2
    return name if len(name) <= _NAME else f"{name[: half - 1]}…{name[-half:]}"


def verdicts(table: pd.DataFrame, ax: Axes) -> None:
    """Draw how far predictions are from what agrees: a row for each quantity, in half-widths of its band.

    Parameters
    ----------
    table : DataFrame
        quantity, predicted, low, high (what agrees, from and to), verdict (one of `LOOKS`): a row for each.
    ax : Axes
        To draw on.
    """
    middle, half = (table["low"] + table["high"]) / 2, (table["high"] - table["low"]) / 2
    off = (table["predicted"] - middle).to_numpy(float)
    exact = half.to_numpy(float) == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        places = np.where(exact, np.sign(off) * 2 * _FAR, off / half.to_numpy(float))
    ax.axvspan(-1, 1, color="#e4e4e4", lw=0)
    ax.axvline(0, color="#999999", lw=0.6)
    rows = np.arange(len(table))
    for verdict, (colour, marker) in LOOKS.items():
        mine = (table["verdict"] == verdict).to_numpy()
        if not mine.any():
            continue
        face = "none" if verdict == "fitted" else colour
        where = np.clip(places[mine], -_FAR, _FAR)
        ax.plot(where, rows[mine], marker, color=colour, markersize=4, label=verdict, clip_on=False, mfc=face)
    for row, place in zip(rows, places, strict=True):
        if abs(place) > _FAR:
            side = np.sign(place)
            ax.annotate("", (side * (_FAR + 0.5), row), (side * (_FAR + 0.12), row), arrowprops={"arrowstyle": "->"})
    ax.set_yticks(rows, [_short(name) for name in table["quantity"]])
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.set_xlim(-_FAR - 0.6, _FAR + 0.6)
    ax.set_xticks([-_FAR, -2, -1, 0, 1, 2, _FAR], [f"≤−{_FAR:g}", "−2", "−1", "0", "1", "2", f"≥{_FAR:g}"])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("predicted less measured, in half-widths of what agrees")
    if ax.lines:
        ax.legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)


def by_line(table: pd.DataFrame, ax: Axes) -> None:
    """Draw what was measured and predicted over a quantity, a line for each name.

    Parameters
    ----------
    table : DataFrame
        line, x, predicted, measured (or nothing): a row for each point.
    ax : Axes
        To draw on.
    """
    for colour, line in zip(PALETTE, dict.fromkeys(table["line"]), strict=False):
        mine = table[table["line"] == line]
        ax.plot(mine["x"], mine["predicted"], "-", color=colour, label=f"{line}, simulated")
        found = mine.dropna(subset="measured")
        ax.plot(found["x"], found["measured"], "o", color=colour, markersize=4, label=f"{line}, measured")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(sorted({*table["x"]}), [f"{x:g}" for x in sorted({*table["x"]})])
    ax.minorticks_off()
    ax.legend(loc="upper left")
