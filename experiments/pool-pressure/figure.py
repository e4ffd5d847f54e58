"""Pools under pressure: what a pool's minimum, maximum and refill do where every page was taken from somebody.

Four VMs write all over 44 MiB on a host of 32 that swaps to an NVMe SSD. On a host with memory enough a fault waits for
a refill at worst (experiment `pool`), so that minimum and batch are all that matters. Here one fault in a hundred and
more has to read its page back, and the 99th percentile is the device's, whatever the pool is told; only refills of 128
pages with no minimum are worse: each is a wait longer than a read.

What the pool decides is how many pages there are to be swapped. What lies in pools nobody uses: with a large minimum,
a large maximum and large refills twice as many pages go to the device, and an access takes half as long again. Without
a minimum an access waits for refills for a tenth of its time, with one of 8 pages for a hundredth; and yet it takes 2 %
less, where refills are small, for a quarter fewer pages are swapped. So the advice turns round: small refills, and a
small minimum or none.

    python experiments/pool-pressure/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from vmsim.analysis.style import WIDE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=1.9, columns=3, sharey=True)
FREQUENCY: Final = EXPERIMENT.sweep.scenario.cpu.frequency
_KEYS: Final = ["pool_max", "pool_min", "batch"]


def data() -> pd.DataFrame:
    """Return pool_max, pool_min, batch, and of all VMs cycles an access, the worst p99 in µs, waits and pages."""
    table = EXPERIMENT.table()
    found = table.groupby(_KEYS, as_index=False).agg(
        total=("total_cycles", "sum"),
        accesses=("accesses", "sum"),
        p99_us=("fault_p99_cycles", "max"),
        swapped=("swapped", "sum"),
        pool_wait=("pool_wait_cycles", "sum"),
    )
    found["p99_us"] *= 1e6 / FREQUENCY
    found["cycles_per_access"] = found["total"] / found["accesses"]
    found["waiting"] = found["pool_wait"] / found["total"]
    return found.drop(columns=["accesses", "pool_wait"])


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw a panel for each maximum: minimum by refill; thousands of cycles an access, and the p99 below."""
    minima, batches = (np.unique(table[key]) for key in ("pool_min", "batch"))
    scale = Normalize(table["cycles_per_access"].min(), table["cycles_per_access"].max())
    for ax, (maximum, panel) in zip(axes, table.groupby("pool_max"), strict=True):
        cells = panel.set_index(["pool_min", "batch"])
        values = cells["cycles_per_access"].unstack().reindex(minima, columns=batches)
        ax.imshow(values.to_numpy(), norm=scale, cmap="cividis_r", aspect="auto", origin="lower")
        for (row, column), value in np.ndenumerate(values.to_numpy()):
            if np.isnan(value):
                ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", ec="#bbbbbb", lw=0))
                continue
            p99 = cells["p99_us"].loc[minima[row], batches[column]]
            ink = "white" if scale(value) > 0.5 else "black"
            text = f"{value / 1000:.1f}k cycles\np99 {p99:.0f} µs"
            ax.text(column, row, text, ha="center", va="center", color=ink)
        if np.isnan(values.to_numpy()).any():
            ax.text(1, len(minima) - 1, "min > max", ha="center", va="center", backgroundcolor="white")
        ax.set_xticks(range(len(batches)), [f"{batch}" for batch in batches])
        ax.set_yticks(range(len(minima)), [f"{minimum}" for minimum in minima])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(f"pool.max = {maximum}")
        ax.set_xlabel("pool.batch (pages of a refill)")
    axes[0].set_ylabel("pool.min (pages)")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
