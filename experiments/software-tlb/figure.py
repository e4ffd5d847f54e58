"""Software TLB: how often a monitor's own TLB spares it a walk of the guest's tables, and what that saves, by its size.

Eight entries are as good as five hundred: from one load of CR3, which empties it, to the next the guest's kernel edits
few tables. The programs differ by how often they load CR3 and touch what is new, from a quarter of the look-ups to nine
in ten: a fork's scan reads each entry once, and those of one table lie in one page; so do those that a fault in a file
looks at. It saves no more than a twentieth of the monitor's cycles, for a walk is the smallest part of an exit.

    python experiments/software-tlb/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, height=2.3, columns=2)
# program: colour, marker
LINES: Final = {
    "forkwait": (PALETTE[5], "o"),
    "compile": (PALETTE[1], "s"),
    "churn": (PALETTE[2], "^"),
    "cc1": (PALETTE[0], "D"),
    "switcher": (PALETTE[7], "v"),
}


def data() -> pd.DataFrame:
    """Return vm, entries, look_ups, and from 0 to 1 hit_rate and saved (of what the monitor takes without the TLB)."""
    table = EXPERIMENT.table()
    table["look_ups"] = table["software_tlb_hits"] + table["software_tlb_misses"]
    table["hit_rate"] = table["software_tlb_hits"] / table["look_ups"]
    without = table[table["entries"] == 0].set_index("vm")["exit_cycles"]
    table["saved"] = 1 - table["exit_cycles"] / table["vm"].map(without)
    return table[["vm", "entries", "look_ups", "hit_rate", "saved", "software_tlb_saved_cycles", "exit_cycles"]]


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw the hit rate, and the cycles saved."""
    for ax, column in zip(axes, ("hit_rate", "saved"), strict=True):
        for program, (colour, marker) in LINES.items():
            here = table[table["vm"] == program]
            ax.plot(here["entries"], 100 * here[column], c=colour, marker=marker, markersize=2.6, label=program)
        ax.set_xscale("symlog", base=2, linthresh=1)
        ax.set_xticks([0, 1, 8, 64, 512], ["0", "1", "8", "64", "512"])
        ax.minorticks_off()
        ax.set_ylim(0)
        ax.grid(axis="y")
        ax.set_xlabel("entries")
    axes[0].set_ylabel("hits (% of look-ups)")
    axes[1].set_ylabel("monitor's cycles saved (%)")
    fig = axes[0].get_figure(root=True)
    if fig is not None:
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
