"""Bilateral allocation: what a host takes that sees its guest's allocator, and what a guest reports, and the costs.

A guest maps 32 MiB, writes to them, frees them and waits for 60 ms; eight times. A host that takes nothing keeps 42 MiB
behind free pages on average. Free page reporting of blocks of 2 MiB and bilateral allocation take the same memory in
all; what is left behind free pages grows with the delay of reports, or the time between two looks, from 4 and 7 MiB to
18 and 17. (The second begins higher, for a huge frame is given memory as a whole, before it is used.) They differ in
what the guest pays to have memory again. What it has reported comes back by a violation for each page of 4 KiB: 58,000,
which take 67 ms with the waits for the pool. What the host has taken by itself the guest asks for by huge frames: about
100 requests, and 47 to 49 ms in all. Where nothing is taken, it pays 14 ms. The host's thread works for 81 to 85 ms for
either.

    python experiments/bilateral/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.base.units import PAGE, parse_duration
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.2, columns=2)
WAYS: Final = {"reporting": "reported, order 9", "shared": "bilateral"}
_MHZ: Final = 3300


def data() -> pd.DataFrame:
    """Return way, period in ms, MiB of free memory that the host still has, and ms of guest and host for all of it."""
    tables = [EXPERIMENT.table().assign(way="none", every="0ms")]
    tables += [EXPERIMENT.table(way).assign(way=way) for way in WAYS]
    table = pd.concat(tables, ignore_index=True)
    table["every_ms"] = [parse_duration(each).cycles(1000) for each in table["every"].astype(str)]
    table["gap_mib"] = table["gap"] * PAGE / 2**20
    table["exit_ms"] = (table["exit_cycles"] + table["pool_wait_cycles"]) / _MHZ / 1000
    table["host_ms"] = table["host"].fillna(0) / _MHZ / 1000
    return table.sort_values(["way", "every_ms"]).reset_index(drop=True)


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw what the host keeps behind free memory, and what the guest pays to have it back."""
    nothing = table[table["way"] == "none"].iloc[0]
    for colour, mark, (way, label) in zip(PALETTE, "os", WAYS.items(), strict=False):
        rows = table[table["way"] == way]
        for ax, column in zip(axes, ("gap_mib", "exit_ms"), strict=True):
            ax.plot(rows["every_ms"], rows[column], f"{mark}-", color=colour, markersize=3, label=label)
    for ax, column in zip(axes, ("gap_mib", "exit_ms"), strict=True):
        ax.axhline(nothing[column], color="0.5", linestyle=":", label="nothing taken")
        ax.set_xlabel("delay of reports, time between looks (ms)")
        ax.set_ylim(0, None)
        ax.grid(axis="y")
    axes[0].set_ylabel("host memory behind\nfree pages (MiB, mean)")
    axes[1].set_ylabel("exits and waits for memory (ms)")
    axes[1].legend()


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
