"""Two sockets: where a guest's tables and its host's nested tables lie, and what a walk costs by that.

A VM runs on the first socket. What lies on the other takes 135 cycles longer wherever DRAM serves it. A guest's own
tables lie in its memory, so they are far when that is; nested tables are the host's, and can be far from both. One
entry of each dimension comes from DRAM in three of four walks, so that either costs the same: walks take 23 % more
cycles where one is far, 46 % where both are, and where pages take turns half of that. Nested tables with a copy on each
node that runs the VM (vMitosis) are near wherever its memory lies, for one frame more for each of them that would be
far. The guest's own tables have none, and stay where its memory is.

    python experiments/table-placement/figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.2)
PLACES: Final = {"0": "near", "interleave": "both", "1": "far", "replicate": "copied"}
REMOTE: Final = 135


def data() -> pd.DataFrame:
    """Return the cycles of walks for an access by place of the guest's tables and of the nested ones.

    And how many references of each dimension the far socket served, for an access, and frames of nested tables.
    """
    table = EXPERIMENT.table()
    table["guest"] = [PLACES[str(place)] for place in table["memory"]]
    table["nested"] = [PLACES[str(place)] for place in table["tables"]]
    for dimension in ("guest", "nested"):
        table[f"{dimension}_walk"] = table[f"walk_{dimension}_cycles"] / table["accesses"]
        for side in ("near", "far"):
            table[f"{dimension}_{side}"] = table[f"{dimension}_{side}"] / table["accesses"]
    columns = ["guest_walk", "nested_walk", "guest_near", "guest_far", "nested_near", "nested_far", "table_frames"]
    return table[["guest", "nested", *columns]]


def draw(table: pd.DataFrame, ax: Axes) -> None:
    """Draw the cycles of walks in both dimensions, one bar for each pair of places."""
    order = ["near", "both", "far"]
    pairs = [(nested, guest) for nested in (*order, "copied") for guest in order]
    rows = table.set_index(["nested", "guest"]).loc[pairs]
    at = np.arange(len(rows)) + np.arange(len(rows)) // len(order) * 0.6
    ax.bar(at, rows["guest_walk"], color=PALETTE[0], label="guest's tables")
    ax.bar(at, rows["nested_walk"], bottom=rows["guest_walk"], color=PALETTE[1], label="nested tables")
    ax.set_xticks(at, [f"{guest}\n{nested}" for nested, guest in rows.index])
    ax.set_xlabel("where they lie: the guest's memory with its tables, and below the nested tables")
    ax.set_ylabel("walk cycles per access")
    ax.legend()
    ax.grid(axis="y")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
