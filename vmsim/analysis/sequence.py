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
_DROP: Final = 0.6  # of an arrow, in rows
_COLOURS: Final = dict(
    zip(("need_pages", "grant", "reclaim", "spare", "return", "need_large", "grant_large"), PALETTE, strict=False)
)


def message_sequence(table: pd.DataFrame, ax: Axes) -> None:
    """Draw messages as a sequence diagram: a lifeline for each monitor and one for the host, time running down.

    Messages are in the order in which they are sent, one below the other, with their times beside them: to scale, those
    of the first microsecond would lie on one another. Where they are few they are labelled with their pages.

    Parameters
    ----------
    table : DataFrame
        `Result.messages`, or some of its rows: time_cycles, time_us, vm, sender, kind, pages.
    ax : Axes
        To draw on.
    """
    vms = list(dict.fromkeys(sorted(table["vm"])))
    host = len(vms) // 2  # in the middle, so that arrows cross few lifelines
    names = [*vms[:host], "host", *vms[host:]]
    for place, name in enumerate(names):
        ax.axvline(place, color="#999999" if name == "host" else "#cccccc", linewidth=0.8, zorder=0)
    rows = table.sort_values("time_cycles", kind="stable").to_dict("records")
    for place, row in enumerate(rows):
        ends = [(float(names.index(row["vm"])), float(place)), (float(names.index("host")), float(place))]
        start, end = ends if row["sender"] == "monitor" else ends[::-1]
        end = end[0], end[1] + _DROP
        arrow = FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=6,
            shrinkA=0,
            shrinkB=0,
            linewidth=0.9,
            color=_colour(row["kind"]),
        )
        ax.add_patch(arrow)
        if len(table) <= _LABELLED:
            # Near who says it, a monitor's above the arrow and the host's below: a call and its answer do not collide.
            near = 0.7 * start[0] + 0.3 * end[0], 0.7 * start[1] + 0.3 * end[1]
            side, offset = ("bottom", 1.5) if row["sender"] == "monitor" else ("top", -2.5)
            text = f"{row['kind']}({row['pages']})"
            ax.annotate(text, near, (0, offset), textcoords="offset points", ha="center", va=side, fontsize=6)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylim(len(rows), -0.6)
    every = -(-len(rows) // _LABELLED)
    ax.set_yticks(range(0, len(rows), every), [f"{row['time_us']:,.2f}" for row in rows[::every]])
    ax.set_xticks(range(len(names)), names)
    ax.xaxis.tick_top()
    ax.tick_params(axis="x", length=0)
    ax.spines[["bottom", "right"]].set_visible(False)
    ax.set_ylabel("sent at (µs); not to scale")
    kinds = [kind for kind in _COLOURS if kind in set(table["kind"])]
    lines = [Line2D([], [], color=_COLOURS[kind], label=kind) for kind in kinds]
    ax.legend(handles=lines, ncols=len(lines), loc="upper center", bbox_to_anchor=(0.5, -0.02), borderaxespad=0)


def _colour(kind: str) -> str:
    return _COLOURS.get(kind, "black")
