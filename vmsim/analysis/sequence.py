"""Sequence diagrams of messages between monitors and the host."""

from __future__ import annotations

from typing import Final

import vmsim.analysis.plain_matplotlib  # noqa: F401  (before matplotlib)

# isort: split

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from vmsim.analysis.style import PALETTE

__all__ = ["MOST", "message_sequence"]

MOST: Final = 400
"""Messages that one diagram can show and still be read as a picture."""

_LABELLED: Final = 40
_COLOURS: Final = dict(
    zip(("need_pages", "grant", "reclaim", "spare", "return", "need_large", "grant_large"), PALETTE, strict=False)
)


def message_sequence(table: pd.DataFrame, ax: Axes) -> None:
    """Draw messages as a sequence diagram: a lifeline for each monitor and one for the host, time running down.

    An arrow starts when its message is sent and ends when that has had its effect, so its slope is its cost. Where the
    messages are few they are labelled with their pages.

    Parameters
    ----------
    table : DataFrame
        `Result.messages`, or some of its rows: time_cycles, time_us, vm, from, what, pages, cycles.
    ax : Axes
        To draw on.
    """
    vms = list(dict.fromkeys(sorted(table["vm"])))
    host = len(vms) // 2  # in the middle, so that arrows cross few lifelines
    names = [*vms[:host], "host", *vms[host:]]
    scale = _cycles_per_microsecond(table)
    first, last = float(table["time_us"].min()), float((table["time_us"] + table["cycles"] / scale).max())
    margin = 0.02 * max(last - first, 1e-3)
    for place, name in enumerate(names):
        ax.axvline(place, color="#999999" if name == "host" else "#cccccc", linewidth=0.8, zorder=0)
    for row in table.to_dict("records"):
        vm = names.index(row["vm"])
        ends = [(vm, row["time_us"]), (names.index("host"), row["time_us"])]
        start, end = ends if row["from"] == "monitor" else ends[::-1]
        end = (end[0], row["time_us"] + row["cycles"] / scale)
        arrow = FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=6,
            shrinkA=0,
            shrinkB=0,
            linewidth=0.9,
            color=_colour(row["what"]),
        )
        ax.add_patch(arrow)
        if len(table) <= _LABELLED:
            # Near who says it, a monitor's above the arrow and the host's below: a call and its answer do not collide.
            near = tuple(0.7 * a + 0.3 * b for a, b in zip(start, end, strict=True))
            side, offset = ("bottom", 1.5) if row["from"] == "monitor" else ("top", -2.5)
            text = f"{row['what']}({row['pages']})"
            ax.annotate(text, near, (0, offset), textcoords="offset points", ha="center", va=side, fontsize=6)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylim(last + margin, first - margin)
    ax.set_xticks(range(len(names)), names)
    ax.xaxis.tick_top()
    ax.tick_params(axis="x", length=0)
    ax.spines[["bottom", "right"]].set_visible(False)
    ax.set_ylabel("simulated time (µs)")
    kinds = [kind for kind in _COLOURS if kind in set(table["what"])]
    lines = [Line2D([], [], color=_COLOURS[kind], label=kind) for kind in kinds]
    ax.legend(handles=lines, ncols=len(lines), loc="upper center", bbox_to_anchor=(0.5, -0.02), borderaxespad=0)


def _colour(what: str) -> str:
    return _COLOURS.get(what, "black")


def _cycles_per_microsecond(table: pd.DataFrame) -> float:
    """Return the frequency that the two columns of time imply."""
    cycles, microseconds = float(table["time_cycles"].max()), float(table["time_us"].max())
    return cycles / microseconds if microseconds else 1000.0
