"""Fill chunk: what a fault costs for each page that it brings in and that is used, by the mappings it brings in.

The exit is paid once for a chunk, an entry for each of its mappings. Where neighbours are used, the exit is shared by
more and more of them, and what remains is the entries' own cost: under EPT and NPT, where a kernel hands out the frames
of its memory one after the other, and where a process uses all that it has mapped. Where it uses little of that, small
chunks only add entries that nobody uses; from there on larger ones cost no more, for all that is mapped is in.
A program that does nothing but touch new pages takes them faster than its pool is refilled: up to chunks of 32 it waits
50 to 750 cycles a page for that, which are in the lines; a chunk of the pool's minimum (64) and more asks in time.
What an exit costs beside an entry is a quotient of guesses: the form of the curves is sure, not where they bend.

    python experiments/fill-chunk/figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE
from vmsim.base.units import PAGE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, height=2.6)
# paging mode and accesses in a turn: label, colour, line, marker
LINES: Final = {
    ("shadow", 32): ("shadow, {:.0%} of the mappings used", PALETTE[1], "-", "v"),
    ("shadow", 128): ("shadow, {:.0%} used", PALETTE[0], "-", "s"),
    ("shadow", 2048): ("shadow, {:.0%} used", PALETTE[2], "-", "o"),
    ("ept", 200_000): ("EPT, fresh memory", PALETTE[7], "--", "D"),
    ("npt", 200_000): ("NPT, fresh memory", PALETTE[3], ":", "^"),
}


def data() -> pd.DataFrame:
    """Return paging, every, chunk, share (of mappings used in a turn), the monitor's exits and cycles per page used."""
    table = EXPERIMENT.table()
    pages = table["footprint"] // PAGE
    turns = table["accesses"] // table["every"]
    table["share"] = 1 - (1 - 1 / pages) ** table["every"]  # of `pages`, hit by so many uniform accesses
    used = turns * table["share"] * pages
    table["exits_per_page"] = table["exits"] / used
    table["cycles_per_page"] = (table["exit_cycles"] + table["pool_wait_cycles"]) / used
    return table[["paging", "every", "chunk", "share", "exits_per_page", "cycles_per_page", "guest_frames"]]


def draw(table: pd.DataFrame, ax: Axes) -> None:
    """Draw a line for each mode and share."""
    for (paging, every), (label, colour, line, marker) in LINES.items():
        here = table[(table["paging"] == paging) & (table["every"] == every)]
        label = label.format(here["share"].iloc[0])
        ax.plot(here["chunk"], here["cycles_per_page"], line, color=colour, marker=marker, markersize=2.6, label=label)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks([1, 4, 16, 64, 256], ["1", "4", "16", "64", "256"])
    ax.set_yticks([500, 1000, 2000, 5000, 10000], ["500", "1,000", "2,000", "5,000", "10,000"])
    ax.minorticks_off()
    ax.grid(axis="y")
    ax.set_xlabel("fill_chunk (mappings brought in per fault)")
    ax.set_ylabel("monitor, cycles per page used")
    fig = ax.get_figure(root=True)
    if fig is not None:
        fig.legend(loc="outside upper left", ncols=2)


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
