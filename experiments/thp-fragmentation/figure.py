"""What huge pages of the host's are worth where its free memory is fragmented, with khugepaged and without.

A program reads and writes 48 MiB at random, eight times what the TLB reaches by small pages. Its guest maps all of it
by pages of 2 MiB; whether the TLB can hold it so depends on the host, whose free memory is more or less in single
pages beside pages of its page cache.

Where faults take what blocks there are, and no more is done, the share that both have by huge pages falls with
fragmentation, and each access costs up to tens of cycles of translation, as with small pages on the host. Compaction at
the faults (`defrag`) keeps nearly all of it aligned. khugepaged, which has memory compacted too, makes up for what the
faults did not get within two thirds of this run, however fragmented the host was: translation costs nothing then.

    python experiments/thp-fragmentation/figure.py
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

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.4, columns=2)
WAYS: Final = {
    ("never", False): ("at faults alone", "o-"),
    ("madvise", False): ("with compaction", "s-"),
    ("never", True): ("with khugepaged", "^-"),
    ("madvise", True): ("with both", "v--"),
}


def data() -> pd.DataFrame:
    """Return by fragmentation, defrag and khugepaged the aligned share, and cycles of translation an access."""
    table = EXPERIMENT.table()
    made = table[["fragmentation", "defrag", "khugepaged", "guest_huge", "host_huge", "aligned"]].copy()
    made["share"] = made["aligned"] / made["guest_huge"]
    made["translation"] = table["translation_cycles"] / table["accesses"]
    return made


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw the aligned share and what translation costs."""
    for ax, column, label in zip(
        axes,
        ("share", "translation"),
        ("share of memory huge in both", "translation, cycles per access"),
        strict=True,
    ):
        for ((defrag, khugepaged), (name, line)), colour in zip(WAYS.items(), PALETTE, strict=False):
            here = table[(table["defrag"] == defrag) & (table["khugepaged"] == khugepaged)]
            ax.plot(here["fragmentation"], here[column], line, color=colour, label=name, markersize=4)
        ax.set_xlabel("fragmentation of the host")
        ax.set_ylabel(label)
        ax.set_ylim(bottom=0)
        ax.grid(axis="y")
    axes[1].legend()


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
