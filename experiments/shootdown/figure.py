"""Shootdowns: what an munmap costs a process by the CPUs that run it, in each paging mode.

A thread that unmaps memory makes every CPU that runs its process flush, and waits for them. So the same rounds of map,
write and unmap take more cycles the more CPUs share them: natively an interrupt and its answer for each other CPU, less
where many send at once, for an interrupt that is on its way serves all; in a VM an exit more for each that is sent (the
CPU of the figure posts those that come), and for pages that are faulted in the way of the monitor's lock from one to
the next. Under a shadow every page that a CPU invalidates is an exit of its own, on
every CPU, and the monitor has the other vCPUs leave the guest once more, to flush what it takes from the shadow: the
cost is four to six times that of EPT. A vkernel's host tells its processors itself, in the call by which the
guest's kernel says what it has taken away, and nothing is added here for those (contention in the host is not
simulated).

    python experiments/shootdown/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.6, columns=2, sharey="row")
ROUNDS: Final = 320  # of scenario.toml
# paging: label, colour, marker
LINES: Final = {
    "native": ("native", "#999999", "o"),
    "ept": ("EPT", PALETTE[0], "s"),
    "shadow": ("shadow", PALETTE[1], "^"),
    "vkernel": ("vkernel", PALETTE[2], "D"),
}


def data() -> pd.DataFrame:
    """Return paging, vcpus, work, cost (cycles a round: of shootdowns, and exits beyond those on one CPU), counts."""
    table = EXPERIMENT.table()
    alone = table[table["vcpus"] == 1].set_index(["paging", "work"])["exit_cycles"]
    exits = table["exit_cycles"] - alone.reindex(pd.MultiIndex.from_frame(table[["paging", "work"]])).to_numpy()
    table["cost"] = (table["shootdown"] + exits) / ROUNDS
    counts = ["shootdown", "interrupts", "merged", "kicks", "exits", "exit_cycles"]
    return table[["paging", "vcpus", "work", "cost", *counts]]


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw a panel for each distance between unmaps, and a line for each mode."""
    for ax, (work, here) in zip(axes, table.groupby("work"), strict=True):
        for paging, (label, colour, marker) in LINES.items():
            line = here[here["paging"] == paging].sort_values("vcpus")
            ax.plot(line["vcpus"], line["cost"] / 1000, color=colour, marker=marker, markersize=3, label=label)
        ax.set_xscale("log", base=2)
        ax.set_yscale("symlog", linthresh=1)
        ax.set_yticks([0, 1, 10, 100, 1000], ["0", "1", "10", "100", "1,000"])
        ticks = sorted(table["vcpus"].unique().tolist())
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.set_xlabel("CPUs that run the process")
        ax.set_title(f"{work:,} accesses between unmaps", loc="left")
        ax.grid(axis="y")
    axes[0].set_ylabel("shootdowns (1,000 cycles a round)")
    axes[1].legend(loc="lower right", bbox_to_anchor=(1.0, 0.1))


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
