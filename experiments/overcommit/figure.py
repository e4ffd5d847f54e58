"""Overcommit: how many VMs a host takes under each policy until they are slower than alone.

Each VM of 16 MiB reads a file of 13 MiB once, and uses 5 MiB of a program's memory all the time: of what it holds two
thirds are cold, and only its kernel knows. Two fit on the host, and with the third the host swaps: without a policy
all take three and a half times as long, for most of what the host takes is used again. A policy that gives all VMs the
same part asks for its pages before the host is short of them; five VMs, promised twice what there is, are as fast as
one alone, or faster, since a guest that uses its frames again has fewer violations. The sixth does not fit: 6 times 5
MiB and what kernels need is more than parts of a host's memory allow. MoM and ESX look only once the host is short.
These guests fill their memory within milliseconds, faster than balloons grow, so the host swaps meanwhile; three to
five VMs take one and a half to three times as long, with half of the pages or fewer that come back. With the sixth
MoM stays below three, and ESX, which asks all for more than they can spare, is a tenth better than swap alone. VMs that
live for hours would be balanced for most of that time.

    python experiments/overcommit/figure.py
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

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.2, columns=2)
POLICIES: Final = {"none": "none: swap alone", "prorata": "in proportion", "mom": "MoM", "esx": "ESX"}


def data() -> pd.DataFrame:
    """Return policy, vms, slowdown (of all VMs, against one without a policy), and pages swapped and back."""
    tables = [EXPERIMENT.table().assign(policy="none"), EXPERIMENT.table("policies"), EXPERIMENT.table("esx")]
    table = pd.concat(tables, ignore_index=True)
    table["time"] = (table["finish_cycle"] - table["start_cycle"]) / table["accesses"]
    grouped = table.groupby(["policy", "vms"], sort=False)
    found = grouped.agg(time=("time", "mean"), swapped=("swapped", "sum"), back=("back", "sum"))
    alone = table.loc[(table["policy"] == "none") & (table["vms"] == 1), "time"].mean()
    found["slowdown"] = found["time"] / alone
    return found.drop(columns="time").reset_index()


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw how much slower VMs are, and the pages that come back from swap, by the number of VMs."""
    for colour, mark, (policy, label) in zip(PALETTE, "os^D", POLICIES.items(), strict=False):
        mine = table[table["policy"] == policy]
        for ax, column in zip(axes, ("slowdown", "back"), strict=True):
            ax.plot(mine["vms"], mine[column], f"{mark}-", color=colour, markersize=3, label=label)
    axes[0].set_ylabel("time over that alone (ratio)")
    axes[0].legend()
    axes[1].set_ylabel("pages back from swap")
    axes[1].yaxis.set_major_formatter("{x:,.0f}")
    for ax in axes:
        ax.set_xlabel("VMs of 16 MiB on a host of 40 MiB")
        ax.set_ylim(0, None)
        ax.grid(axis="y")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
