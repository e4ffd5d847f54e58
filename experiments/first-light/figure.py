"""First light: how much slower programs run in a VM than on the host itself, and what that is made of.

Four traces of real programs run in four VMs on one host, and two streams whose footprints no TLB covers in two VMs
on another. EPT belongs to Intel CPUs and NPT to AMD's, so each is compared with native execution on a CPU that has
it: both runs make the same accesses and differ in the paging mode and in nothing else. Measured is the second half of
each run; what it still touches for the first time is shown apart, because a program that runs longer pays for it
once. Waits for a pCPU are left out on both sides.

    python experiments/first-light/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE
from vmsim.cli.experiment import make
from vmsim.cli.screen import print_frame
from vmsim.sweeps.experiment import Experiment

CAPTION: Final = """
Slowdown in VMs over native execution on two CPUs, in the second half of each run, waits for a pCPU left out. Solid:
translation, and all else: data that page tables push out of caches, switches between VMs, later faults and exits.
Hatched: first touches of pages, for which a longer run pays once. sqlite, cc1, python and sort are traces of real
programs, whose data references cost nothing here, so that these slowdowns are upper bounds. key-value (zipf) and
random (GUPS) use 256 MiB, more than any TLB covers, and their data goes through the caches.
"""
EXPERIMENT: Final = Experiment(Path(__file__).parent, "translation", height=2.7, columns=2, sharey=True)
TITLES: Final = {"skylake-x": "Intel Skylake-X, EPT", "zen4": "AMD Zen 4, NPT"}
CALLED: Final = {"zipf": "key-value", "gups": "random"}
PARTS: Final = {
    "translation": ("page walks and TLBs", PALETTE[0], ""),
    "other": ("all else", "#b0b0b0", ""),
    "first_touch": ("first touches", "white", "//////"),
}
"""What a slowdown is made of, from the bottom up: label, colour, hatch."""
_ROOM: Final = 1.18  # of the axis over the highest bar, for the number on it


def data() -> pd.DataFrame:
    """Return a row for each cpu and workload: what native execution takes a access, and the slowdown's parts in %.

    Returns
    -------
    DataFrame
        cpu, workload, mode, native (cycles per access), slowdown (% of native), and a column for each of `PARTS`, in %
        of native, which sum to it: translation, first touches, and all else (data that page tables push out of the
        caches, switches between VMs, later faults and exits).
    """
    table = pd.concat([EXPERIMENT.table(), EXPERIMENT.table("generators")], ignore_index=True)
    table["workload"] = table["workload"].replace(CALLED)
    own = table["total_cycles"] - table["pcpu_wait_cycles"]
    costs = pd.DataFrame(
        {
            "own": own,
            "translation": table["translation_cycles"],
            "first_touch": table["first_touch_cycles"],
        }
    ).div(table["accesses"], axis=0)
    costs["other"] = costs["own"] - costs["translation"] - costs["first_touch"]
    costs.index = pd.MultiIndex.from_frame(table[["cpu", "workload", "mode"]])
    native = costs.xs("native", level="mode")
    nested = costs[costs.index.get_level_values("mode") != "native"].reset_index("mode")
    more = (nested[native.columns] - native).div(native["own"], axis=0) * 100
    made = more.round(6).rename(columns={"own": "slowdown"}).assign(native=native["own"], mode=nested["mode"])
    columns = ["mode", "native", "slowdown", *PARTS]
    order = pd.MultiIndex.from_frame(table[["cpu", "workload"]].drop_duplicates())
    return made.loc[order, columns].reset_index()


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw a panel for each CPU: a bar for each program, with the slowdown on it."""
    for ax, (cpu, title) in zip(axes, TITLES.items(), strict=True):
        mine = table[table["cpu"] == cpu]
        places = np.arange(len(mine))
        bottom = np.zeros(len(mine))
        for part, (label, colour, hatch) in PARTS.items():
            heights = mine[part].to_numpy(dtype=float).clip(min=0)
            bars = ax.bar(places, heights, bottom=bottom, width=0.75, label=label, color=colour, hatch=hatch)
            for bar in bars:
                bar.set(edgecolor="#555555", linewidth=0.4)
            bottom += heights
        for place, top, slowdown in zip(places, bottom, mine["slowdown"], strict=True):
            ax.annotate(f"{slowdown:.0f}", (place, top), (0, 1.5), textcoords="offset points", ha="center")
        ax.set_xticks(places, list(mine["workload"]), rotation=90)
        ax.tick_params(axis="x", length=0)
        ax.set_title(title)
        ax.grid(axis="y")
        ax.set_ylim(0, max(ax.get_ylim()[1], float(bottom.max()) * _ROOM))
    axes[0].set_ylabel("slowdown over native (%)")
    handles, labels = axes[1].get_legend_handles_labels()
    figure = axes[0].get_figure(root=True)
    if figure is not None:
        figure.legend(handles, labels, ncols=3, loc="outside upper center")


def show(table: pd.DataFrame) -> None:
    """Print what is drawn."""
    headings = {
        "native": "native, cycles per access",
        "slowdown": "slowdown, %",
        **{part: label for part, (label, *_) in PARTS.items()},
    }
    for cpu, title in TITLES.items():
        mine = table[table["cpu"] == cpu].drop(columns=["cpu", "mode"])
        print_frame(f"{title}: slowdown over native, and its parts in % of native", mine, headings=headings)


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
    show(data())
