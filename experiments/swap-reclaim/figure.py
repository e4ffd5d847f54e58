"""How long a program takes that does not fit, by its host's swap device and by who chooses the pages that go there.

A VM whose pages are wanted by Zipf's law runs on a host that has less than two thirds of the memory for them. Its
pages go to a disk, a SATA or an NVMe SSD, or to compressed memory; which of them, chance says, a clock, Linux's two
lists, or its generations.

Whoever looks at what was accessed has a fifth fewer pages come back than chance, and the three are alike: independent
accesses tell nothing that one flag does not. The device decides: an access takes some 170 times as long with a disk as
with an NVMe SSD. Compressed memory takes frames from the program itself, so that twice as many pages come back, and is
the fastest. Of what goes to a device a third was only read since it came back, and is not written again.

    python experiments/swap-reclaim/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.cli.experiment import make
from vmsim.scenario import load_cpu
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.4, columns=2)
DEVICES: Final = {"hdd": "HDD", "sata": "SATA", "nvme": "NVMe", "zram": "zram"}
POLICIES: Final = ("random", "clock", "two-list", "mglru")


def data() -> pd.DataFrame:
    """Return device, policy, accesses, pages that came back and went, and microseconds of an access."""
    table = EXPERIMENT.table()
    made = table[["device", "policy", "accesses", "back", "out", "clean", "swap_wait"]].copy()
    made["microseconds"] = table["total_cycles"] / table["accesses"] * 1e6 / load_cpu("skylake-x").frequency
    made["per_thousand"] = 1000 * made["back"] / made["accesses"]
    return made


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw how many pages come back, and how long an access takes."""
    width = 0.8 / len(POLICIES)
    for ax, column, label in zip(
        axes,
        ("per_thousand", "microseconds"),
        ("pages that come back in 1,000 accesses", "µs an access"),
        strict=True,
    ):
        for number, (policy, colour) in enumerate(zip(POLICIES, (*PALETTE[:3], PALETTE[6]), strict=True)):
            here = table[table["policy"] == policy].set_index("device").loc[list(DEVICES)]
            at = [place + (number - 1.5) * width for place in range(len(DEVICES))]
            ax.bar(at, here[column], color=colour, width=width, label=policy, edgecolor="#555555", linewidth=0.4)
        ax.set_xticks(range(len(DEVICES)), [*DEVICES.values()])
        ax.set_ylabel(label)
        ax.grid(axis="y")
    axes[1].set_yscale("log")
    axes[0].legend(ncols=2)


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
