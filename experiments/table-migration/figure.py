"""Nested tables of a VM that has gone to another socket: they stay behind, move after its pages, or are copied.

The VM runs on the first of two sockets and all its memory lies on the second, as if it had just been moved. NUMA
balancing brings its pages, and with them the guest's own tables, which lie in its memory. Its nested tables are the
host's: Linux leaves them where they are, and walks take 23 % more cycles for good than where all was near from the
start. Tables that move after what they lead to (vMitosis) cost what near ones do, and no frame more; copies on the
node that runs the VM cost the same walks, and a frame for each table.

    python experiments/table-migration/figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent)
TABLES: Final = {
    "0": "near from\nthe start",
    "1": "stay\nbehind",
    "migrate": "move after\npages",
    "replicate": "copied",
}


def data() -> pd.DataFrame:
    """Return the cycles of walks for an access by what becomes of the nested tables, and where these lie at the end.

    And how many references of each dimension the far socket served, for an access.
    """
    table = EXPERIMENT.table()
    table["nested_tables"] = [TABLES[str(tables)].replace("\n", " ") for tables in table["tables"]]
    for dimension in ("guest", "nested"):
        table[f"{dimension}_walk"] = table[f"walk_{dimension}_cycles"] / table["accesses"]
        table[f"{dimension}_far"] = table[f"{dimension}_far"] / table["accesses"]
    columns = ["guest_walk", "nested_walk", "guest_far", "nested_far", "tables_near", "tables_far"]
    return table[["nested_tables", *columns]]


def draw(table: pd.DataFrame, ax: Axes) -> None:
    """Draw the cycles of walks in both dimensions, one bar for each fate of the nested tables."""
    names = list(TABLES.values())
    rows = table.set_index("nested_tables").loc[[name.replace("\n", " ") for name in names]]
    at = np.arange(len(rows))
    ax.bar(at, rows["guest_walk"], width=0.6, color=PALETTE[0], label="guest's tables")
    ax.bar(at, rows["nested_walk"], width=0.6, bottom=rows["guest_walk"], color=PALETTE[1], label="nested tables")
    ax.set_xticks(at, names)
    ax.set_xlabel("nested tables, once pages have come nearer")
    ax.set_ylabel("walk cycles per access")
    ax.set_ylim(top=ax.get_ylim()[1] * 1.15)
    ax.legend(ncols=2, loc="upper center")
    ax.grid(axis="y")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
