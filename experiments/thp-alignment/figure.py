"""What huge pages are worth that only a guest has, only its host, or both.

A program reads and writes 32 MiB at random. Its guest's free memory is in single pages when it starts, and so is the
host's: at first all is mapped by 4 KiB. Then the guest's khugepaged puts it together, or the host's, or both, or none.

A TLB can have an entry of 2 MiB only where both map it so (well-aligned: W. Jia et al., "Making Dynamic Page
Coalescing Effective on Virtualized Clouds", EuroSys 2023). With either alone there are as many misses as with none.
Where two tables are walked each walk then has fewer references, by the entry of 4 KiB that one of the tables has no
more, and takes half as long: those entries are what the caches do not have. Under shadow paging, whose one table has
entries of 4 KiB all the same, nothing is gained. With both, in every paging mode, there are no misses at all.

    python experiments/thp-alignment/figure.py
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

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.6, columns=3)
WHO: Final = {
    (False, False): "neither",
    (True, False): "guest",
    (False, True): "host",
    (True, True): "both",
}
PAGES: Final = 96 << 8  # of the VM
PARTS: Final = {"aligned": "2M in both", "guest_only": "guest alone", "host_only": "host alone", "small": "4K in both"}


def data() -> pd.DataFrame:
    """Return how the VM's pages lie, and misses and what walks take an access, by mode and whose khugepaged runs."""
    table = EXPERIMENT.table()
    made = table[["paging", "guest", "host", "aligned"]].copy()
    made["guest_only"] = table["guest_huge"] - table["aligned"]
    made["host_only"] = table["host_huge"] - table["aligned"]
    made["small"] = PAGES - made[["aligned", "guest_only", "host_only"]].sum(axis=1)
    made["misses"] = table["l2_tlb_misses"] / table["accesses"]
    made["references"] = table["walk_refs"] / table["accesses"]
    made["cycles"] = table["walk_cycles"] / table["accesses"]
    return made


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw how the pages lie under EPT, and what is missed and walked in each mode: with both nothing is."""
    places = np.arange(len(WHO))
    indexed = table.set_index(["paging", "guest", "host"])
    here = indexed.loc["ept"].loc[[*WHO]]
    below = np.zeros(len(WHO))
    for (name, label), colour in zip(PARTS.items(), (*PALETTE[:3], "#d4d4d4"), strict=True):
        share = here[name].to_numpy() / PAGES
        axes[0].bar(places, share, 0.7, below, color=colour, label=label)
        below += share
    axes[0].set_xticks(places, [*WHO.values()])
    axes[0].set_xlabel("whose khugepaged runs")
    axes[0].set_ylabel("share of the VM's memory")
    axes[0].set_ylim(0, 1.45)
    axes[0].set_yticks([0, 0.5, 1])
    axes[0].legend(ncols=2, loc="upper center", handlelength=1, columnspacing=0.8)
    modes = [*dict.fromkeys(table["paging"])]
    for ax, column, label in zip(
        axes[1:], ("misses", "references"), ("L2 TLB misses per access", "walk references per access"), strict=True
    ):
        for number, ((who, name), colour) in enumerate(zip(WHO.items(), (*PALETTE[:3], "black"), strict=True)):
            values = [float(indexed.loc[(mode, *who), column]) for mode in modes]
            ax.bar(
                np.arange(len(modes)) + (number - 1.5) * 0.2,
                values,
                0.2,
                color=colour,
                label=name if max(values) > 0.01 else f"{name}: 0",
            )
        ax.set_xticks(np.arange(len(modes)), [{"ept": "EPT", "npt": "NPT"}.get(mode, mode) for mode in modes])
        ax.set_ylabel(label)
        ax.set_ylim(0, 1.4 * float(table[column].max()))
        ax.grid(axis="y")
    axes[1].legend(ncols=2, title="huge pages of")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
