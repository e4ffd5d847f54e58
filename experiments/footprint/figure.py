"""Footprint: what translation costs an access, from 1 MiB to 8 GiB, natively and nested, with small and large pages.

Each step up is a structure that has become too small: the first-level TLB, the second, the caches that hold the
tables' entries. While a TLB holds the whole footprint, nesting is free; beyond that it multiplies what a miss costs,
and its second set of tables fills the caches earlier. Large pages in the guest alone buy back most of what nesting
added, and no more: the TLB still holds 4 KiB translations. Large pages in both dimensions move the steps of the TLBs
to the right, about 512 times.

    python experiments/footprint/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.base.units import format_size
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, "translation", width=WIDE, height=2.7, columns=2, sharey=True)
TITLES: Final = {"skylake-x": "Intel Skylake-X", "zen4": "AMD Zen 4"}
MODES: Final = {"ept": "EPT", "npt": "NPT"}
# guest's and host's page size, native or not: label, colour, line, marker
LINES: Final = {
    ("4K", "4K", False): ("{nested}, 4K pages", PALETTE[5], "-", "o"),
    ("2M", "4K", False): ("{nested}, 2M in the guest, 4K in the host", PALETTE[1], "-", "s"),
    ("4K", "4K", True): ("native, 4K pages", PALETTE[7], "--", "o"),
    ("2M", "2M", False): ("{nested}, 2M pages", PALETTE[0], "-", "D"),
    ("2M", "2M", True): ("native, 2M pages", PALETTE[4], "--", "D"),
}


def data() -> pd.DataFrame:
    """Return cpu, paging, guest_page, host_page, footprint (bytes) and translation (cycles per access)."""
    table = EXPERIMENT.table().rename(columns={"translation_cycles_per_access": "translation"})
    return table[["cpu", "paging", "guest_page", "host_page", "footprint", "translation"]]


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw a panel for each CPU, a line for each mode and page size."""
    for ax, (cpu, title) in zip(axes, TITLES.items(), strict=True):
        mine = table[table["cpu"] == cpu]
        nested = next(name for mode, name in MODES.items() if mode in set(mine["paging"]))
        for (guest, host, native), (label, colour, line, marker) in LINES.items():
            here = mine[
                (mine["guest_page"] == guest) & (mine["host_page"] == host) & ((mine["paging"] == "native") == native)
            ]
            ax.plot(
                here["footprint"],
                here["translation"],
                line,
                color=colour,
                marker=marker,
                markersize=2.6,
                label=label.format(nested=nested),
            )
        ax.set_xscale("log", base=2)
        ax.set_yscale("symlog", linthresh=10, linscale=0.6)  # it begins at zero, where the TLB holds everything
        sizes = sorted(set(mine["footprint"]))[::2]
        ax.set_xticks(sizes, [format_size(size).replace("iB", "") for size in sizes])
        ax.set_yticks([0, 5, 10, 20, 50, 100, 200, 400], ["0", "5", "10", "20", "50", "100", "200", "400"])
        ax.minorticks_off()
        ax.set_ylim(-0.4, 520)
        ax.grid(axis="y")
        ax.set_title(title)
        ax.set_xlabel("footprint (bytes)")
        ax.legend(loc="upper left", borderaxespad=0.1)
    axes[0].set_ylabel("translation, cycles per access")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
