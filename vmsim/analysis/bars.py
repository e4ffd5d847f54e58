"""Stacked bars: one for each workload and paging mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import vmsim.analysis.plain_matplotlib  # noqa: F401  (before matplotlib)

# isort: split

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vmsim.scenario.modes import paging_modes

__all__ = ["Part", "stacked_bars"]

_GAP = 0.7


class Part(NamedTuple):
    """One part of each bar: how it is drawn, and the columns that it adds up."""

    label: str
    colour: str
    columns: tuple[str, ...]
    hatch: str = ""


def stacked_bars(values: pd.DataFrame, parts: list[Part], modes: Mapping[str, None], ax: Axes) -> None:
    """Draw a bar for each row, in groups by workload.

    Parameters
    ----------
    values : DataFrame
        By (workload, mode), in the order to draw workloads; a column for each thing that parts add up.
    parts : list of Part
        From the bottom up, what is negative below the axis; parts that are 0 everywhere are left out.
    modes : mapping of str to None
        In the order to draw them.
    ax : Axes
        To draw on.
    """
    labels = {name: mode.label for name, mode in paging_modes().items()}
    workloads = list(dict.fromkeys(values.index.get_level_values(0)))
    places = {
        (workload, mode): group * (len(modes) + _GAP) + bar
        for group, workload in enumerate(workloads)
        for bar, mode in enumerate(modes)
        if (workload, mode) in values.index
    }
    bottom, lowest = np.zeros(len(places)), 0.0
    for part in parts:
        there = [column for column in part.columns if column in values.columns]
        heights = values.reindex(list(places))[there].fillna(0.0).to_numpy(dtype=float).sum(axis=1)
        if heights.any():
            ax.bar(
                list(places.values()),
                heights,
                bottom=np.where(heights < 0, 0.0, bottom),
                width=0.82,
                color=part.colour,
                edgecolor="#555555",
                linewidth=0.3,
                label=part.label,
                hatch=part.hatch,
            )
        bottom += heights.clip(min=0.0)
        lowest = min(lowest, heights.min(initial=0.0))
    names = [labels.get(mode) or mode for _, mode in places]
    ax.set_xticks(list(places.values()), names, rotation=90)
    ax.tick_params(axis="x", length=0, pad=1)
    longest = max(map(len, names), default=0)
    below = 3 + 0.67 * mpl.rcParams["xtick.labelsize"] * longest  # points: under the longest name
    for group, workload in enumerate(workloads):
        middle = group * (len(modes) + _GAP) + (len(modes) - 1) / 2
        ax.annotate(
            workload,
            (middle, 0),
            (0, -below),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="top",
        )
    ax.grid(axis="y")
    ax.set_ylim(1.05 * lowest, None if bottom.any() else 1)
    ax.set_xlim(-0.9, max(places.values(), default=0) + 0.9)
