"""Free page hints: what a guest spares who copies it, by how scattered its free memory is.

A VM of 128 MiB, all of which its host has given it, is copied by its dirty log: all memory once, and what each of five
readings finds. When the log begins its balloon's driver says which blocks of 4 MiB are free, the largest that Linux's
allocator has, and those need not be copied. In a guest that has just started that is nearly all that its program does
not use: 116 of 120 MiB where it uses 8. Free memory that is in single pages is in no such block, and few scattered
pages spoil many blocks: with three tenths of free memory so, 24 MiB are spared, whatever the program uses, and with six
tenths 4.

    python experiments/free-page-hints/figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import COLUMN, PALETTE
from vmsim.base.units import PAGE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=COLUMN, height=2.2)
MEMORY: Final = 128
"""MiB of the VM, all of which the host has given it."""


def data() -> pd.DataFrame:
    """Return used and spared MiB by fragmentation; `free_mib` is what of the VM's memory the program does not use."""
    table = EXPERIMENT.table()
    table["used_mib"] = table["used"] / 2**20
    table["spared_mib"] = table["hinted"] * PAGE / 2**20
    table["free_mib"] = MEMORY - table["used_mib"]
    return table.sort_values(["used_mib", "fragmentation"]).reset_index(drop=True)


def draw(table: pd.DataFrame, ax: Axes) -> None:
    """Draw what need not be copied by the guest's fragmentation."""
    for (used, rows), colour, mark in zip(table.groupby("used_mib"), PALETTE, "os^D", strict=False):
        label = f"the program uses {used:.0f} MiB"
        ax.plot(rows["fragmentation"], rows["spared_mib"], f"{mark}-", color=colour, markersize=3, label=label)
    ax.set_xlabel("fragmentation of the guest")
    ax.set_ylabel(f"not copied (MiB of {MEMORY})")
    ax.set_ylim(0, None)
    ax.grid(axis="y")
    ax.legend()


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
