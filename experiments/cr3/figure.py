"""CR3: the shadow dropped at each load of CR3, or kept by root, by how often the guest switches between processes.

Dropped, the shadow of all that a process uses in its turn is filled again, a fault for each page: some hundreds of
switches in a million accesses make a run take ten times as long as natively. Kept, what remains of a switch is the exit
that the load itself takes. With less room than the address spaces need, keeping is dropping, for processes that take
turns in a circle: the shadow that is needed next is the one unused for longest, and goes.

    python experiments/cr3/figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, height=2.5)
# paging mode, on_cr3 and most: label, colour, line, width, marker
LINES: Final = {
    ("shadow", "flush", 1024): ("shadow, flush", PALETTE[1], "-", 3.0, ""),
    ("shadow", "cache", 16): ("shadow, cache of 16 pages", PALETTE[5], "--", 1.0, "s"),
    ("shadow", "cache", 1024): ("shadow, cache", PALETTE[0], "-", 1.0, "D"),
    ("ept", "cache", 1024): ("EPT", PALETTE[7], ":", 1.0, "^"),
}


def data() -> pd.DataFrame:
    """Return paging, on_cr3, most, rate (switches in a million accesses), exits and exit_cycles of each, relative."""
    table = EXPERIMENT.table()
    table["rate"] = 1e6 / table["every"]
    switches = table["accesses"] / table["every"]
    for column in ("exits", "exit_cycles"):
        table[column] = table[column] / switches
    native = table[table["paging"] == "native"].set_index("every")["total_cycles"]
    table["relative"] = table["total_cycles"] / table["every"].map(native)
    return table[["paging", "on_cr3", "most", "rate", "exits", "exit_cycles", "relative"]]


def draw(table: pd.DataFrame, ax: Axes) -> None:
    """Draw a line for each way."""
    for (paging, on_cr3, most), (label, colour, line, width, marker) in LINES.items():
        here = table[(table["paging"] == paging) & (table["on_cr3"] == on_cr3) & (table["most"] == most)]
        ax.plot(here["rate"], here["relative"], line, lw=width, c=colour, marker=marker, markersize=2.6, label=label)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks([10, 100, 1_000, 10_000], ["10", "100", "1,000", "10,000"])
    ax.set_yticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
    ax.minorticks_off()
    ax.grid(axis="y")
    ax.set_xlabel("switches in a million accesses")
    ax.set_ylabel("run time over native (ratio)")
    ax.legend(loc="upper left")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
