"""Crossover: shadow paging against EPT, by how often page tables are edited and how often the TLB misses.

A miss costs more under EPT, an edit under shadow paging. It takes from five hundred to two thousand misses to pay for a
page mapped and unmapped: the more pages are accessed, the more of the tables' entries leave the caches, and the fewer.
A page that is mapped is missed twice, by the access that faults and by the one made again, so that nothing lies to the
left of two misses a page. Four real programs lie near that edge: most of what they miss is new to them, and EPT wins.
Shadow paging needs programs that miss in memory that they keep.

Shadow paging is at its best here: stores to tables go through (unsync), and the shadow is kept. The map is of a steady
state, in which memory is backed; the programs run from their beginning, and under EPT pay for that, too.

    python experiments/crossover/figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap

from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, height=2.9)
LEVELS: Final = (-10, -3, -1, -0.3, 0, 0.3, 1, 3, 10, 30)
# Blue and red are different to colour-blind readers, too.
_COLOURS: Final = ListedColormap(colormaps["RdBu_r"](np.r_[np.linspace(0.1, 0.42, 4), np.linspace(0.58, 0.96, 5)]))
_NORM: Final = BoundaryNorm(LEVELS, _COLOURS.N)
_TEXTS: Final = ((2e3, 60, "EPT wins"), (7e4, 14, "shadow\nwins"), (24, 1.3e3, "a page mapped is\nmissed twice"))
_LEFT: Final = {"sort"}  # programs whose names are on the left of their places


def data() -> pd.DataFrame:
    """Return vm, work, footprint (0 for programs), edits and misses (in a million accesses), ratio, more.

    An edit is a page that the guest's kernel maps; misses are those under EPT. Ratio is of run times, shadow to EPT;
    more is what shadow paging takes more, in cycles per access.
    """
    tables = EXPERIMENT.table(), EXPERIMENT.table("traces").assign(work=0, footprint=0)
    keys = ["vm", "work", "footprint"]
    both = pd.concat([table.set_index([*keys, "paging"]) for table in tables]).unstack("paging")
    found = pd.DataFrame(
        {
            "edits": 1e6 * both["guest_faults"]["ept"] / both["accesses"]["ept"],
            "misses": 1e6 * both["l2_tlb_misses"]["ept"] / both["accesses"]["ept"],
            "ratio": both["total_cycles"]["shadow"] / both["total_cycles"]["ept"],
            "more": both["cycles_per_access"]["shadow"] - both["cycles_per_access"]["ept"],
        }
    )
    return found.reset_index()


def break_even(table: pd.DataFrame) -> pd.Series:
    """Return the misses in a million accesses above which shadow paging wins, by edits where it can."""
    found = {}
    for _, row in table[table["work"] > 0].groupby("work", sort=False):
        line = row.sort_values("misses")
        if line["more"].iloc[-1] < 0 < line["more"].iloc[0]:
            after = int(np.argmax(line["more"].to_numpy() < 0))
            two = line.iloc[after - 1 : after + 1]
            found[row["edits"].iloc[0]] = float(np.exp(np.interp(0, -two["more"], np.log(two["misses"]))))
    return pd.Series(found).sort_index()


def draw(table: pd.DataFrame, ax: Axes) -> None:
    """Draw the map, the line, and the programs."""
    grid = table[table["work"] > 0].set_index(["work", "footprint"])
    edits, misses, more = (grid[column].unstack("footprint").to_numpy() for column in ("edits", "misses", "more"))
    image = ax.contourf(misses, edits, more, levels=LEVELS, norm=_NORM, cmap=_COLOURS)
    ax.contour(misses, edits, more, levels=[0], colors="black", linewidths=1.4)
    programs = table[table["work"] == 0]
    ax.scatter(
        programs["misses"], programs["edits"], c=programs["more"], norm=_NORM, cmap=_COLOURS, s=16, ec="black", lw=0.6
    )
    for name, x, y in zip(programs["vm"], programs["misses"], programs["edits"], strict=True):
        place, side = ((-4, 2), "right") if name in _LEFT else ((4, -2), "left")
        ax.annotate(name, (x, y), place, textcoords="offset points", va="center", ha=side, fontsize=6.5)
    for x, y, text in _TEXTS:
        ax.text(x, y, text, fontsize=6.5)
    ax.set(xscale="log", yscale="log", xlim=(18, 1e6), ylim=(edits.min(), edits.max()))
    ax.set_xticks([100, 1_000, 10_000, 100_000, 1_000_000], ["100", "1,000", "10⁴", "10⁵", "10⁶"])
    ax.set_yticks([10, 100, 1_000], ["10", "100", "1,000"])
    ax.minorticks_off()
    ax.set_xlabel("TLB misses in a million accesses")
    ax.set_ylabel("pages mapped in a million accesses")
    fig = ax.get_figure(root=True)
    if fig is not None:
        bar = fig.colorbar(image, ax=ax, pad=0.02, ticks=LEVELS)
        bar.ax.set_yticklabels([f"{level:g}" for level in LEVELS])
        bar.set_label("shadow minus EPT, cycles per access")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
