"""Pool: what a page pool's minimum, maximum and refill do to the slowest faults of a VM that takes fresh memory.

A refill of b pages takes the time to clear and hand over b pages, and no fault is served from it before it is whole.
The minimum is what is left to live on meanwhile, so it must grow with the refill, or faults wait for most of it. No
refill brings more than the maximum has room for, so a batch beyond it changes nothing. A large maximum makes refills
rare: once they come less than once in a hundred faults, the 99th percentile is blind to them.

    python experiments/pool/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from vmsim.analysis.style import WIDE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, "fault-latency", width=WIDE, height=2.2, columns=3, sharey=True)
FREQUENCY: Final = EXPERIMENT.sweep.scenario.cpu.frequency
_COLOURS: Final = "cividis"  # even in lightness, and the same to colour-blind readers


def data() -> pd.DataFrame:
    """Return pool_max, pool_min, batch, p99_cycles and p99_us."""
    table = EXPERIMENT.table().rename(columns={"fault_p99_cycles": "p99_cycles"})
    table["p99_us"] = table["p99_cycles"] * 1e6 / FREQUENCY
    return table[["pool_max", "pool_min", "batch", "p99_cycles", "p99_us"]]


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw a panel for each maximum: minimum by pages of a refill, the latency in µs in each cell."""
    minima, batches = (np.unique(table[key]) for key in ("pool_min", "batch"))
    scale = LogNorm(table["p99_us"].min(), table["p99_us"].max())
    image = None
    for ax, (maximum, panel) in zip(axes, table.groupby("pool_max"), strict=True):
        values = panel.pivot_table(index="pool_min", columns="batch", values="p99_us").reindex(minima, columns=batches)
        image = ax.imshow(values.to_numpy(), norm=scale, cmap=_COLOURS, aspect="auto", origin="lower")
        for (row, column), value in np.ndenumerate(values.to_numpy()):
            if np.isnan(value):
                ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", ec="#bbbbbb", lw=0))
            else:
                ink = "black" if scale(value) > 0.55 else "white"
                text = f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
                ax.text(column, row, text, ha="center", va="center", color=ink)
        if np.isnan(values.to_numpy()).any():
            ax.text(
                len(batches) / 2 - 0.5, len(minima) - 1, "min > max", ha="center", va="center", backgroundcolor="white"
            )
        ax.set_xticks(range(len(batches)), [f"{batch}" for batch in batches])
        ax.set_yticks(range(len(minima)), [f"{minimum}" for minimum in minima])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(f"pool.max = {maximum}")
        ax.set_xlabel("pool.batch (pages of a refill)")
    axes[0].set_ylabel("pool.min (pages)")
    fig = axes[0].get_figure(root=True)
    if fig is not None and image is not None:
        bar = fig.colorbar(image, ax=list(axes), pad=0.015)
        bar.outline.set_visible(False)
        bar.set_label("99th percentile of EPT violations (µs)")
        bar.set_ticks([2, 5, 10, 20], labels=["2", "5", "10", "20"])
        bar.ax.minorticks_off()


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
