"""A VM on two sockets: where its memory lies, and what that costs its threads.

Each of two threads works in 4 MiB of its own. If pages lie where they are touched first, none is far from a program of
the host, and few are from a VM: its guest sees one node, and hands a frame that one thread has given up to the other.
If they take turns, half of the references go to the other socket, and an access takes a fifth longer. If all lie on one
socket, the thread there has them near, the other far, and has to be waited for: two thirds more. NUMA balancing brings
those pages home, in every way of paging, and costs 4 to 8 % beside first touch, scans and faults and moves of the
measured half among it.

    python experiments/wide-vm/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.2, columns=2)
MODES: Final = ("native", "ept", "shadow")
PLACES: Final = ("first touch", "in turn", "one socket", "one, balanced")
REMOTE: Final = 135


def place_of(row: pd.Series) -> str:
    """Return where memory lies in a run."""
    if str(row["memory"]) == "0":
        return PLACES[2] if str(row["delay"]) == "1000s" else PLACES[3]
    return PLACES[0] if str(row["memory"]) == "local" else PLACES[1]


def data() -> pd.DataFrame:
    """Return by mode and place the cycles of an access of the slower thread, and the share of references that are far.

    Pages that NUMA balancing has moved, and its faults, are those of the measured half.
    """
    table = EXPERIMENT.table()
    table["place"] = [place_of(row) for _, row in table.iterrows()]
    table["cycles"] = (table["finish_cycle"] - table["start_cycle"]) / (table["accesses"] / 2)
    table["far"] = table["ways"] / REMOTE / (table["data_0"] + table["data_1"])
    return table[["mode", "place", "cycles", "far", "moved", "hints"]]


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw the cycles of an access, and how many references go to the other socket."""
    left, right = axes
    at = np.arange(len(PLACES))
    for number, mode in enumerate(MODES):
        rows = table[table["mode"] == mode].set_index("place").loc[[*PLACES]]
        left.bar(
            at + 0.25 * number - 0.25,
            rows["cycles"],
            0.25,
            color=PALETTE[number],
            label="EPT" if mode == "ept" else mode,
        )
        right.bar(at + 0.25 * number - 0.25, 100 * rows["far"], 0.25, color=PALETTE[number])
    left.set_ylabel("cycles per access")
    right.set_ylabel("references to the other socket (%)")
    left.legend()
    for ax in axes:
        ax.set_xticks(at, [place.replace(" ", "\n", 1) for place in PLACES])
        ax.grid(axis="y")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
