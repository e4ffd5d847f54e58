"""The horizon: how far results move when vCPUs run farther ahead of what others do to them.

Within `host.horizon` a vCPU does not see what others do meanwhile: to the caches that they share, to the pages that
the host takes from it, to translations that another vCPU has it forget. A shorter horizon is more exact, and takes
longer to simulate. Where VMs share the last-level cache nothing moves by more than 0.1 %, and waits for a pool do not
move by a cycle: who asks the host settles first. Where the host takes 50,000 pages a second from four VMs, time moves
by 0.2 % at most up to the default of 20 us, and by more at a millisecond; under shadow paging single takes weigh more,
for with a table a part of the shadow is made anew. Four threads that interrupt one another at each munmap differ by
0.1 % under EPT between 1 and 20 us, and natively by less, and not from 50 us on: each shootdown ends a run. Half of the
default is within 0.1 % of it everywhere.

Each error is that of the VMs' mean time, against the same seed at 1 us. Lines are means of four seeds, bands their
range.

    python experiments/horizon/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.base.units import parse_duration
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.1, columns=4, sharey=True)
DEFAULT: Final = 20  # us, of `host.horizon`
PANELS: Final = {
    "caches": "a shared cache",
    "pool": "waits for a pool",
    "reclaim": "pages taken from VMs",
    "shootdowns": "shootdowns",
}
LINES: Final = {"native": (PALETTE[3], "-.", "D"), "ept": (PALETTE[0], "-", "o"), "shadow": (PALETTE[1], "--", "s")}
LABELS: Final = {"native": "native", "ept": "EPT", "shadow": "shadow"}


def data() -> pd.DataFrame:
    """Return panel, paging, horizon (us), replicate and error (of the VMs' mean time against that at 1 us, a share)."""
    table = EXPERIMENT.table()
    table["panel"] = "pool"
    table.loc[table["data_caches"], "panel"] = "caches"
    table.loc[table["rate"] > 0, "panel"] = "reclaim"
    rows = pd.concat([table, EXPERIMENT.table("shootdowns").assign(panel="shootdowns")], ignore_index=True)
    rows["horizon"] = [float(parse_duration(text).amount * 10**6) for text in rows["horizon"]]
    keys = ["panel", "paging", "replicate"]
    means = rows.groupby([*keys, "horizon"], as_index=False)["total_cycles"].mean()
    first = means[means["horizon"] == 1].set_index(keys)["total_cycles"].rename("first")
    means = means.join(first, on=keys)
    means["error"] = means["total_cycles"] / means["first"] - 1
    errors: pd.DataFrame = means[["panel", "paging", "horizon", "replicate", "error"]]
    return errors


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw a panel for each way in which vCPUs meet."""
    for ax, (panel, title) in zip(axes, PANELS.items(), strict=True):
        for paging, (colour, line, marker) in LINES.items():
            here = table[(table["panel"] == panel) & (table["paging"] == paging)]
            if here.empty:
                continue
            errors = 100 * here.groupby("horizon")["error"].agg(["mean", "min", "max"])
            label = LABELS[paging]
            ax.plot(errors.index, errors["mean"], line, c=colour, marker=marker, markersize=2.6, label=label)
            ax.fill_between(errors.index, errors["min"], errors["max"], color=colour, alpha=0.2, lw=0)
        ax.axvline(DEFAULT, c="#999999", lw=0.8, zorder=0)
        ax.set_xscale("log")
        ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
        ax.minorticks_off()
        ax.grid(axis="y")
        ax.set_title(title)
        ax.set_xlabel("horizon (µs)")
    axes[0].set_ylabel("time, against 1 µs (%)")
    axes[0].annotate("default", (DEFAULT, -2), (3, 0), textcoords="offset points", color="#666666")
    fig = axes[0].get_figure(root=True)
    if fig is not None:
        pairs = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        fig.legend(pairs.values(), pairs.keys(), loc="outside upper center", ncols=3)


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
