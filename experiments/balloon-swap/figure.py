"""Balloon against swap against both: what the guest's own picks save a host that is short of memory.

Two VMs of 16 MiB on a host of 23 MiB each read a file of 13 MiB once, and use 5 MiB of a program's memory all the
time. Most of what a guest has is cold, and can be dropped: but only its kernel knows. With no balloon the host swaps,
and four of five pages that it takes come back, for a new page of the file is read to the frame of an old one. With
balloons that leave what the host has nothing is swapped, the guests drop pages that nobody reads again, and an access
takes less than a third of the time. In between both happen; a balloon that is much too small makes it worse.

    python experiments/balloon-swap/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.base.units import parse_size
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.2, columns=2)


def data() -> pd.DataFrame:
    """Return the balloon's size in MiB, and of all VMs pages swapped and evicted, and the mean cycles of an access."""
    table = EXPERIMENT.table()
    table["mib"] = [parse_size(size) / 2**20 for size in table["balloon"].astype(str)]
    sums = table.groupby("mib")[["out", "back", "evicted", "guest_out", "swap_wait", "io_wait"]].sum()
    sums["cycles_per_access"] = table.groupby("mib")["cycles_per_access"].mean()
    return sums.reset_index()


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw what goes where, and what an access takes."""
    left, right = axes
    columns = {"back": "host swap: came back", "guest_out": "guest swap: went", "evicted": "guest dropped"}
    for (column, label), colour, mark in zip(columns.items(), PALETTE, "os^", strict=False):
        left.plot(table["mib"], table[column], f"{mark}-", color=colour, markersize=3, label=label)
    left.set_ylabel("pages")
    left.legend()
    right.plot(table["mib"], table["cycles_per_access"], "o-", color=PALETTE[0], markersize=2.6)
    right.set_ylabel("cycles per access")
    for ax in axes:
        ax.set_xlabel("balloon of each VM (MiB)")
        ax.set_ylim(0, None)
        ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.grid(axis="y")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
