"""Figures. Each draws one table on the axes that it is given."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from vmsim.record.html import COLOURS, LABELS

__all__ = ["STACK", "pool_level", "references_heatmap", "translation_cycles"]

STACK: Final = {
    "l2_tlb": ("l2_tlb",),
    "walk_guest": ("walk_guest",),
    "walk_nested": ("walk_nested",),
    "guest_fault": ("guest_fault",),
    "exit": ("exit",),
    "pool_wait": ("pool_wait", "host_wait"),
}
"""The parts of a bar of `translation_cycles`, from the bottom up, and the causes that each adds up."""

_LABELS: Final = LABELS | {"pool_wait": "wait for memory"}
_MODES: Final = {"native": "native", "ept": "EPT", "npt": "NPT"}
_GAP: Final = 0.7
_INK: Final = 0.55


def translation_cycles(table: pd.DataFrame, ax: Axes, *, legend: bool = True) -> None:
    """Draw what translation and memory management cost: a stacked bar for each workload and mode.

    Parameters
    ----------
    table : DataFrame
        workload, mode, cause, per_access: as from `analysis.tables.cycles_by_cause`. Causes that are neither
        translation nor memory management (compute, data, scheduling) are left out.
    ax : Axes
        To draw on.
    legend : bool, optional
        Say what the colours are, above the axes.
    """
    workloads, modes = (list(dict.fromkeys(table[key])) for key in ("workload", "mode"))
    values = table.pivot_table(index=["workload", "mode"], columns="cause", values="per_access", aggfunc="sum")
    places = {
        (workload, mode): group * (len(modes) + _GAP) + bar
        for group, workload in enumerate(workloads)
        for bar, mode in enumerate(modes)
        if (workload, mode) in values.index
    }
    bottom = np.zeros(len(places))
    for part, causes in STACK.items():
        there = [cause for cause in causes if cause in values.columns]
        heights = values.reindex(list(places))[there].fillna(0.0).to_numpy(dtype=float).sum(axis=1)
        if heights.any():
            ax.bar(
                list(places.values()),
                heights,
                bottom=bottom,
                width=0.82,
                color=COLOURS[part],
                edgecolor="black",
                linewidth=0.3,
                label=_LABELS[part],
            )
        bottom += heights
    ax.set_xticks(list(places.values()), [_MODES.get(mode, mode) for _, mode in places], rotation=90)
    ax.tick_params(axis="x", length=0, pad=1)
    for group, workload in enumerate(workloads):
        middle = group * (len(modes) + _GAP) + (len(modes) - 1) / 2
        ax.annotate(
            workload,
            (middle, 0),
            (0, -29),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="top",
        )
    ax.grid(axis="y")
    ax.set_ylabel("cycles per access")
    ax.set_xlim(-0.9, max(places.values(), default=0) + 0.9)
    if legend and ax.containers:
        ax.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)


def pool_level(table: pd.DataFrame, ax: Axes) -> None:
    """Draw how many pages each monitor's pool had over time.

    The table has the level after each transfer, and so the one before it. In between, where vCPUs take pages one by
    one, the line is straight.

    Parameters
    ----------
    table : DataFrame
        `Result.pool`: time_us, vm, what, pages, level.
    ax : Axes
        To draw on.
    """
    kept = table[table["what"] != "return"]
    for vm in dict.fromkeys(kept["vm"]):
        mine = kept[kept["vm"] == vm]
        change = mine["pages"].where(mine["what"] != "spare", -mine["pages"])
        before = (mine["level"] - change).clip(lower=0)  # a suspended vCPU may have taken some of a grant at once
        levels = np.column_stack([before, mine["level"]]).ravel()
        ax.plot(np.repeat(mine["time_us"] / 1000, 2), levels, label=vm)
    ax.grid(axis="y")
    ax.set_xlabel("simulated time (ms)")
    ax.set_ylabel("pages in the pool")
    ax.set_ylim(bottom=0)
    if ax.lines:
        ax.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)


def references_heatmap(table: pd.DataFrame, ax: Axes) -> None:
    """Draw where in the walk the references are: share of all by guest level and nested level.

    Parameters
    ----------
    table : DataFrame
        `Result.references`: guest_level, nested_level, served, count; of one VM or of several together. Look-ups that
        a page walk cache served are no references and are left out.
    ax : Axes
        To draw on.
    """
    made = table[table["served"] != "PWC"]
    guests = range(max([*made["guest_level"], 1]), -1, -1)
    nesteds = range(max([*made["nested_level"], 0]), -1, -1)
    counts = (
        made.pivot_table(index="guest_level", columns="nested_level", values="count", aggfunc="sum", fill_value=0)
        .reindex(index=list(guests), columns=list(nesteds), fill_value=0)
        .to_numpy(dtype=float)
    )
    shares = counts / max(1.0, counts.sum())
    image = ax.imshow(shares, cmap="Blues", vmin=0, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if share:
            text = f"{share:.1%}" if share >= 0.001 else "<0.1%"
            ink = "white" if share > _INK * shares.max() else "black"
            ax.text(column, row, text, ha="center", va="center", color=ink)
    ax.set_xticks(range(len(nesteds)), [f"nL{level}" if level else "guest's\nentry" for level in nesteds])
    ax.set_yticks(range(len(guests)), [f"gL{level}" if level else "data" for level in guests])
    ax.tick_params(length=0)
    ax.set_xlabel("entry read")
    ax.set_ylabel("on the way to")
    ax.spines[:].set_visible(False)
    if ax.figure is not None:
        bar = ax.figure.colorbar(image, ax=ax, format=PercentFormatter(1.0, decimals=0))
        bar.outline.set_visible(False)
        bar.set_label("share of references")
