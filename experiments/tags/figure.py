"""Tags: what flushes cost that PCIDs save between processes, and VPIDs or ASIDs between VMs, by how often they switch.

The TLB has room for everything here. Tagged, nothing is walked for twice, however often is switched: what is left is
the second level's cycles. Untagged, each switch has every page walked for once more, 256 walks where a turn is long
enough to use them all. That fades in turns of some ten thousand accesses, and in slices of a millisecond. The AMD
model loses most: its walks read from the second-level cache, not the first, which is a guess of its preset's.

    python experiments/tags/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE
from vmsim.base.units import parse_duration
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, height=2.4, columns=2, sharey=True)
# cpu and whether tagged: label, colour, line, marker
LINES: Final = {
    ("zen4", False): ("AMD, untagged", PALETTE[5], "-", "o"),
    ("zen4", True): ("AMD, tagged", PALETTE[5], "--", "s"),
    ("skylake-x", False): ("Intel, untagged", PALETTE[0], "-", "^"),
    ("skylake-x", True): ("Intel, tagged", PALETTE[0], "--", "D"),
}
PANELS: Final = {
    "processes": ("PCIDs, 4 processes", "switches in 10⁶ accesses", [100, 1_000, 10_000]),
    "VMs": ("VPIDs or ASIDs, 2 VMs", "switches per ms", [1, 10, 100]),
}


def data() -> pd.DataFrame:
    """Return panel, cpu, tagged, rate (switches in a million accesses, or in a ms), misses and translation.

    Misses are those of the second-level TLB, translation is in cycles, both per access.
    """
    table = EXPERIMENT.table()
    vms = table["vms"] > 1
    slices = [1000 / float(parse_duration(text).amount * 10**6) for text in table["quantum"]]
    table["panel"] = vms.map({True: "VMs", False: "processes"})
    table["tagged"] = table["pcid"].where(~vms, table["tags"] != "none")
    table["rate"] = (1e6 / table["every"]).where(~vms, slices)
    table["misses"] = table["l2_tlb_misses"] / table["accesses"]
    table["translation"] = table["translation_cycles_per_access"]
    keys = ["panel", "cpu", "tagged", "rate"]
    return table.groupby(keys, as_index=False)[["misses", "translation"]].mean()  # over the VMs


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw a panel for processes and one for VMs."""
    for ax, (panel, (title, label, ticks)) in zip(axes, PANELS.items(), strict=True):
        for (cpu, tagged), (name, colour, line, marker) in LINES.items():
            here = table[(table["panel"] == panel) & (table["cpu"] == cpu) & (table["tagged"] == tagged)]
            ax.plot(here["rate"], here["translation"], line, c=colour, marker=marker, markersize=2.6, label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        ax.set_yticks([5, 10, 20, 50], ["5", "10", "20", "50"])
        ax.minorticks_off()
        ax.grid(axis="y")
        ax.set_title(title)
        ax.set_xlabel(label)
    axes[0].set_ylabel("translation, cycles per access")
    fig = axes[0].get_figure(root=True)
    if fig is not None:
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
