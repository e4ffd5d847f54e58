"""Crossover: shadow paging against EPT, by how often page tables are edited and how often the TLB misses.

A miss costs more under EPT, an edit under shadow paging. It takes from five hundred to two thousand misses to pay for a
page mapped and unmapped: the more pages are accessed, the more of the tables' entries leave the caches, and the fewer.
A page that is mapped is missed twice, by the access that faults and by the one made again, so that nothing lies to the
left of two misses a page but programs that write to pages that they have read as zeros, and that are mapped twice. Four
real programs lie near that edge: most of what they miss is new to them, and EPT wins.
Shadow paging needs programs that miss in memory that they keep.

How much it wins by depends on what else a program waits for. The map has every access to data take the same time: where
each access misses the TLB, shadow paging takes two thirds of EPT's time. With data that go through the caches, as page
tables do, nearly each of those accesses waits for memory as well, and it takes 95 % of it (panel on the right). Page
tables and data then push one another out of the caches: a walk costs more, and for an edit a quarter to nearly all of
those misses pay (dashed line).

The line rests on guesses: what an exit and its steps take. Were all of them half as much, an edit would be paid for by
48 to 69 % of the misses; were they twice as much, by up to twice as many (dotted lines).

Shadow paging is at its best here: stores to the lowest tables go through (the preset kvm), and the shadow is kept. The
map is of a steady state, in which memory is backed; the programs run from their beginning, and under EPT pay for that,
too.

    python experiments/crossover/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.lines import Line2D

from vmsim.analysis.style import WIDE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=3.1, columns=2, width_ratios=[1.9, 1])
LEVELS: Final = (-10, -3, -1, -0.3, 0, 0.3, 1, 3, 10, 30)
# Blue and red are different to colour-blind readers, too.
_COLOURS: Final = ListedColormap(colormaps["RdBu_r"](np.r_[np.linspace(0.1, 0.42, 4), np.linspace(0.58, 0.96, 5)]))
_NORM: Final = BoundaryNorm(LEVELS, _COLOURS.N)
_TEXTS: Final = ((2e3, 60, "EPT wins"), (7e4, 14, "shadow\nwins"), (24, 1.3e3, "a page mapped is\nmissed twice"))
DATA: Final = {False: "take the same time", True: "go through the caches"}
_LEFT: Final = {"sort"}  # programs whose names are on the left of their places


def data() -> pd.DataFrame:
    """Return vm, work, footprint (0: programs), data_caches, edits, misses (in a million accesses), ratio, more, exit.

    An edit is a page that the guest's kernel maps; misses are those under EPT. Ratio is of run times, shadow to EPT;
    more is what shadow paging takes more, in cycles per access; exit is how much of its own are exits.
    """
    tables = EXPERIMENT.table(), EXPERIMENT.table("traces").assign(work=0, footprint=0, data_caches=False)
    keys = ["vm", "work", "footprint", "data_caches"]
    both = pd.concat([table.set_index([*keys, "paging"]) for table in tables]).unstack("paging")
    found = pd.DataFrame(
        {
            "edits": 1e6 * both["guest_faults"]["ept"] / both["accesses"]["ept"],
            "misses": 1e6 * both["l2_tlb_misses"]["ept"] / both["accesses"]["ept"],
            "ratio": both["total_cycles"]["shadow"] / both["total_cycles"]["ept"],
            "more": both["cycles_per_access"]["shadow"] - both["cycles_per_access"]["ept"],
            "exit": both["exit_cycles"]["shadow"] / both["accesses"]["shadow"],
        }
    )
    return found.reset_index()


def guessed(table: pd.DataFrame, times: float) -> pd.DataFrame:
    """Return the table with exits that take so many times as long."""
    return table.assign(more=table["more"] + (times - 1) * table["exit"])


def break_even(table: pd.DataFrame, *, data_caches: bool = False) -> pd.Series:
    """Return the misses in a million accesses above which shadow paging wins, by edits where it can."""
    found = {}
    for _, row in table[(table["work"] > 0) & (table["data_caches"] == data_caches)].groupby("work", sort=False):
        line = row.sort_values("misses")
        if line["more"].iloc[-1] < 0 < line["more"].iloc[0]:
            after = int(np.argmax(line["more"].to_numpy() < 0))
            two = line.iloc[after - 1 : after + 1]
            found[row["edits"].iloc[0]] = float(np.exp(np.interp(0, -two["more"], np.log(two["misses"]))))
    return pd.Series(found).sort_index()


def _places(table: pd.DataFrame, *, data_caches: bool = False) -> list[Any]:
    """Return misses, edits and more, each by work and footprint."""
    grid = table[(table["work"] > 0) & (table["data_caches"] == data_caches)].set_index(["work", "footprint"])
    return [grid[column].unstack("footprint").to_numpy() for column in ("misses", "edits", "more")]


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw the map, the lines and the programs, and how much is won where shadow paging wins most."""
    ax, right = axes
    misses, edits, more = _places(table)
    image = ax.contourf(misses, edits, more, levels=LEVELS, norm=_NORM, cmap=_COLOURS)
    ax.contour(misses, edits, more, levels=[0], colors="black", linewidths=1.4)
    for times in (0.5, 2):
        ax.contour(*_places(guessed(table, times)), levels=[0], colors="black", linewidths=0.7, linestyles=":")
    ax.contour(*_places(table, data_caches=True), levels=[0], colors="black", linewidths=1, linestyles="--")
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
        lines = [Line2D([], [], color="black", lw=lw, ls=style) for style, lw in (("-", 1.4), ("--", 1), (":", 0.7))]
        fig.legend(
            lines, ["break-even", "data through the caches", "guesses × ½, × 2"], loc="outside lower left", ncols=3
        )
    best = table[table["work"] == table["work"].max()]
    for (data_caches, label), marker in zip(DATA.items(), "os", strict=True):
        line = best[best["data_caches"] == data_caches].sort_values("misses")
        right.plot(line["misses"], 100 * line["ratio"], marker=marker, markersize=3, label=label)
    right.axhline(100, color="#999999", lw=0.6)
    right.set(xscale="log", ylim=(0, 115))
    right.set_xticks([100, 10_000, 1_000_000], ["100", "10⁴", "10⁶"])
    right.minorticks_off()
    right.grid(axis="y")
    right.set_xlabel("TLB misses in a million accesses")
    right.set_ylabel("run time, shadow over EPT (%)")
    right.set_title("a page in 100,000 accesses", loc="left", fontsize=7)
    right.legend(loc="lower left", title="data", alignment="left")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
