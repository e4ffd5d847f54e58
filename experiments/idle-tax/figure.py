"""Idle memory tax: what it takes from an idle VM, and what that is worth to a busy one.

Two VMs have equal shares of a host that has 40 MiB for their 48. One has written to all of its 24 MiB and uses 1 MiB,
the other uses 22. With shares alone each keeps half of what there is, and the busy VM has to read a page from the swap
device for one access in seven. At a tax t an idle page costs as much as 1 / (1 - t) pages that are in use: the idle VM
gives pages up until what it has left costs as much as what the busy one has.

The tax helps little before it helps at once. A VM that waits for its device touches few pages in a period, so that its
working set looks like a tenth of what it is, and the tax is taken from it too. From 60 % on (ESX's default is 75) all
that it uses fits, its accesses take an eighth of the time, and its estimate is five times as high. The idle VM has lost
more than a quarter of its memory by then, and does not notice.

    python experiments/idle-tax/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.2, columns=2)
PAGES: Final = 256  # of a MiB
USED: Final = {"idle": 1.0, "busy": 22.0}  # MiB


def data() -> pd.DataFrame:
    """Return tax, vm, MiB that it has at its end and that are thought to be in use, and cycles per access."""
    table = EXPERIMENT.table()
    made = table[["tax", "vm", "cycles_per_access", "swapped"]].copy()
    made["resident"] = table["guest_frames"] / PAGES
    made["active"] = table["active"] / PAGES
    return made


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw what each VM has, and what an access takes."""
    left, right = axes
    for (name, here), colour, mark in zip(table.groupby("vm", sort=False), PALETTE, "os", strict=False):
        look: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 3}
        left.plot(here["tax"], here["resident"], label=f"{name} VM", **look)
        left.plot(here["tax"], here["active"], ":", **look)
        right.plot(here["tax"], here["cycles_per_access"], label=f"{name} VM", **look)
    left.plot([], [], ":", color="#555555", label="thought to be in use")
    left.set_ylabel("memory (MiB)")
    left.legend()
    right.set_ylabel("cycles per access")
    right.legend()
    for ax in axes:
        ax.set_xlabel("idle memory tax (%)")
        ax.set_ylim(0, None)
        ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.grid(axis="y")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
