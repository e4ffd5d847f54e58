"""Lazy against eager: filling the shadow on demand, or with all that is mapped, by how much of that is used.

Where a load of CR3 drops the shadow, as in plex86, eager fill pays for an entry of every mapping at every turn of a
process, lazy fill for an exit and an entry of each that is used. Eager wins from where the share used is as large as
an entry's part of a lazy fault. Where the shadow is kept, as KVM does, there is nothing to choose.

How large that is nobody has measured: it is a quotient of costs of which two are measured or worked out from
measurements (page_fault_exit, violation_resume), and the others are guesses. As they are guessed, it is a quarter; if
each may be half or twice as much, it is anything from an eighth to nearly a half (the band in the figure).

What holds throughout is the form: what eager fill takes does not depend on what is used, what lazy fill takes is in
proportion to it, and so they cross.

    python experiments/lazy-eager/figure.py
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

EXPERIMENT: Final = Experiment(Path(__file__).parent, height=2.3)
PAGES: Final = 256  # mapped by each process: its footprint
# on_cr3 and fill: label, colour, marker
LINES: Final = {
    ("flush", "lazy"): ("lazy, on_cr3 = flush", PALETTE[0], "o"),
    ("flush", "eager"): ("eager, on_cr3 = flush", PALETTE[5], "s"),
    ("cache", "lazy"): ("either, on_cr3 = cache", PALETTE[7], "x"),
}


def data() -> pd.DataFrame:
    """Return on_cr3, fill, every, share (of mappings used in a turn), exits and cycles of the monitor in a turn."""
    table = EXPERIMENT.table()
    turns = table["accesses"] / table["every"]
    table["share"] = 1 - (1 - 1 / PAGES) ** table["every"]
    table["exits"] /= turns
    table["cycles"] = table["exit_cycles"] / turns
    return table[["on_cr3", "fill", "every", "share", "exits", "cycles"]]


def guesses() -> pd.DataFrame:
    """Return the same where what is guessed is at the ends of its band; `entry` tells which."""
    table = EXPERIMENT.table("guesses").assign(on_cr3="flush")
    table["share"] = 1 - (1 - 1 / PAGES) ** table["every"]
    table["cycles"] = table["exit_cycles"] / (table["accesses"] / table["every"])
    return table[["on_cr3", "fill", "every", "share", "cycles", "entry"]]


def band() -> tuple[float, float]:
    """Return the least and the largest share at which lazy and eager break even."""
    shares = [break_even(each)[0] for _, each in guesses().groupby("entry")]
    return min(shares), max(shares)


def break_even(table: pd.DataFrame) -> tuple[float, float]:
    """Return the share used, and the cycles of a turn, where lazy and eager cost the same."""
    lines = table[table["on_cr3"] == "flush"].pivot_table(index="share", columns="fill", values="cycles")
    gap = lines["lazy"] - lines["eager"]
    share = float(np.interp(0, gap, gap.index))
    return share, float(np.interp(share, lines.index, lines["lazy"]))


def draw(table: pd.DataFrame, ax: Axes) -> None:
    """Draw the lines, where they cross, and where they would, were the guesses half or twice as much."""
    low, high = band()
    ax.axvspan(100 * low, 100 * high, color="#eeeeee", lw=0)
    ax.text(
        50 * (low + high),
        405,
        f"guesses\n× ½ to × 2:\n{low:.0%} to {high:.0%}",
        ha="center",
        fontsize=6.5,
        color="#555555",
        linespacing=1.3,
    )
    for (on_cr3, fill), (label, colour, marker) in LINES.items():
        here = table[(table["on_cr3"] == on_cr3) & (table["fill"] == fill)]
        ax.plot(100 * here["share"], here["cycles"] / 1000, marker=marker, markersize=3, color=colour, label=label)
    share, cycles = break_even(table)
    ax.vlines(100 * share, 0, cycles / 1000, color="#999999", linestyles=":")
    ax.annotate(
        f"{share:.0%}: break-even",
        (100 * share, cycles / 1000 / 4),
        (4, 0),
        textcoords="offset points",
        va="center",
        color="#555555",
    )
    ax.set_xlim(0, 102)
    ax.set_ylim(-15, 800)
    ax.grid(axis="y")
    ax.set_xlabel("mappings used in a turn (%)")
    ax.set_ylabel("monitor, kilocycles per turn")
    ax.legend(loc="upper left")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
