"""KSM: what sharing equal pages saves by the number of identical VMs, and how much of it writes undo.

Of the pages of a VM some are zeros, some hold what the same page of the image holds in every VM, and the rest nobody
else has. Zeros share one frame, whatever the number of VMs; the image's pages share with those of the other VMs, so
that N of them save N - 1 frames. So the share of memory that is saved rises from the zeros alone towards all that is
not unique, as 1/N falls. The two shares are fitted to what ESX shared with one and two VMs (C. Waldspurger, OSDI 2002,
figure 4: 16.8 and 61.1 % shared, 12.6 and 36.4 % reclaimed): with four figures and two shares they miss by 1.1
to 2.2 points, as some of ESX's pages had equals in their own VM that were no zeros.
A page that is written to has a frame of its own again: whatever is written in a round of the VMs through their memory
is lost to sharing, and each such write is an exit with a copy.

    python experiments/ksm/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.base.units import PAGE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.2, columns=2)
PAGES: Final = (16 << 20) // PAGE
ESX: Final = pd.DataFrame({"vms": [1, 2], "sharing": [0.168, 0.611], "saved": [0.126, 0.364]})


def data() -> pd.DataFrame:
    """Return vms, written, and as shares of the VMs' pages: sharing, saved (most at once), merged and broken."""
    table = EXPERIMENT.table()
    host = table.groupby(["written", "vms"], as_index=False).agg(
        sharing=("sharing", "first"), saved=("saved", "first"), merged=("merged", "sum"), broken=("broken", "sum")
    )
    for name in ("sharing", "saved", "merged", "broken"):
        host[name] /= host["vms"] * PAGES
    return host


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw what is saved by the number of VMs, beside ESX's; and what writes leave of it, and break."""
    left, right = axes
    calm = table[table["written"] == 0]
    for name, colour, mark, label in (
        ("sharing", PALETTE[0], "o", "in shared frames"),
        ("saved", PALETTE[1], "s", "saved"),
    ):
        left.plot(calm["vms"], 100 * calm[name], f"{mark}-", color=colour, markersize=3, label=label)
        left.plot(ESX["vms"], 100 * ESX[name], "x", color=colour, markersize=5)
    left.plot([], [], "x", color="#555555", markersize=5, label="ESX (fitted)")
    left.set_ylabel("share of pages (%)")
    left.legend()
    for (written, here), colour, mark in zip(table.groupby("written"), PALETTE, "os^", strict=False):
        look: dict[str, Any] = {"color": colour, "marker": mark, "markersize": 3}
        right.plot(here["vms"], 100 * here["saved"], label=f"{written:.0%} written", **look)
        right.plot(here["vms"], 100 * here["broken"], ":", markerfacecolor="white", **look)
    right.plot([], [], ":", color="#555555", label="broken again")
    right.set_ylabel("share of pages (%)")
    right.legend(loc="upper left", ncols=2)
    for ax, top in ((left, None), (right, 85)):
        ax.set_xlabel("identical VMs")
        ax.set_ylim(0, top)
        ax.grid(axis="y")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
