"""The figure of ``vmsim calibrate``."""

from __future__ import annotations

import vmsim.analysis.plain_matplotlib  # noqa: F401  (before matplotlib)

# isort: split

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE

__all__ = ["translation"]


def translation(table: pd.DataFrame, ax: Axes) -> None:
    """Draw what translation by 4 KiB adds to a load: measured, with its deviation, and simulated in each mode.

    Parameters
    ----------
    table : DataFrame
        line ("measured" or a mode), pages, cycles, deviation: a row for each point.
    ax : Axes
        To draw on.
    """
    mine = table[table["line"] == "measured"]
    ax.errorbar(
        mine["pages"], mine["cycles"], mine["deviation"], fmt="o", color="black", ms=3, elinewidth=0.6, label="measured"
    )
    for colour, mode in zip(PALETTE, dict.fromkeys(table["line"][table["line"] != "measured"]), strict=False):
        line = table[table["line"] == mode]
        style = "--" if mode == "shadow" else "-"
        ax.plot(line["pages"], line["cycles"], style, color=colour, label=mode)
    ax.set_xscale("log", base=2)
    if len(table):
        ticks = [2**power for power in range(4, 25, 2) if table["pages"].min() <= 2**power <= table["pages"].max()]
        ax.set_xticks(ticks, [f"{tick:,}" if tick < 1024 else f"{tick >> 10}k" for tick in ticks])
    ax.minorticks_off()
    ax.set_xlabel("pages of 4 KiB, one line of each")
    ax.set_ylabel("cycles that translation adds\nto a load (4K less 2M)")
    ax.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
