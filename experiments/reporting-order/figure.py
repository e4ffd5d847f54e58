"""Reporting order: what free page reporting brings back by the smallest blocks that are reported, and at what cost.

A guest maps 16 MiB, writes to them, frees all but some pages in pieces of 2 to 1,024 pages, and waits for 100 ms; six
times. With Linux's order 9 next to nothing comes back, for few pieces have a block of 2 MiB in them. Reported page by
page after 10 ms of each pause, five sixths of what the host had behind free pages are its own, and each costs one
violation when the next burst uses it: almost five times as many in all, which takes the guest 3 % of its time, for most
of that is pauses. Reports after 80 of the 100 ms bring back less than half as much by as many violations: a delay that
is as long as the pauses pays for memory that the guest is about to use. Not in the picture is the work of the host's
thread: a report holds 32 blocks, so that page by page 115 are made in place of 18 of order 4.

    python experiments/reporting-order/figure.py
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


def data() -> pd.DataFrame:
    """Return least_order, delay in ms, and of each point MiB of free memory that the host still has, and violations."""
    table = EXPERIMENT.table()
    table["delay_ms"] = [round(parse_duration(delay).cycles(1000)) for delay in table["delay"].astype(str)]
    table["gap_mib"] = table["gap"] * PAGE / 2**20
    return table.sort_values(["delay_ms", "least_order"]).reset_index(drop=True)


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw what the host keeps behind free memory, and the violations that bring it back."""
    for (delay, rows), colour, mark in zip(table.groupby("delay_ms"), PALETTE, "os", strict=False):
        for ax, column in zip(axes, ("gap_mib", "violations"), strict=True):
            ax.plot(
                rows["least_order"], rows[column], f"{mark}-", color=colour, markersize=3, label=f"after {delay} ms"
            )
    axes[0].set_ylabel("host memory behind\nfree pages (MiB, mean)")
    axes[1].set_ylabel("EPT violations")
    axes[0].legend()
    for ax in axes:
        ax.set_xlabel("smallest blocks reported (order)")
        ax.set_ylim(0, None)
        ax.set_xticks(sorted({*table["least_order"]}))
        ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.grid(axis="y")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
