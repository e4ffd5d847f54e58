"""The figure of VMs' memory by who maps it by huge pages, over time."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE
from vmsim.plotting.memory import draw_layers, expect_samples
from vmsim.plotting.parts import Drawn, per_panel, stacked
from vmsim.plotting.plot import Sheet

__all__ = ["alignment", "huge"]

_LABELS = {"aligned": "guest and host", "guest_only": "guest alone", "host_only": "host alone"}
_MIB = 256  # frames


def huge(parts: Sequence[Drawn]) -> Sheet:
    """Memory of the VMs drawn that is in huge pages of both, of their guests alone, and of the host alone, stacked."""
    expect_samples(parts)
    table = stacked(parts, alignment)
    named = [*zip(_LABELS.items(), PALETTE, strict=False)]
    top = 1.1 * max(float(table[[*_LABELS]].sum(axis=1).max()) / _MIB, 1.0)

    def draw(rows: pd.DataFrame, ax: Axes) -> None:
        layers = {label: (rows[name].to_numpy() / _MIB, colour) for (name, label), colour in named}
        draw_layers(ax, rows["time_us"].to_numpy() / 1000, layers)
        ax.set_ylim(0, top)
        ax.set_ylabel("in huge pages (MiB)")

    return Sheet(
        table,
        lambda axes: per_panel(parts, table, axes, draw),
        "Memory in huge pages, as sampled: of the guest and of the host in the same place, which a TLB can have as one "
        "entry, of the guest alone, and of the host alone.",
        rows=len(parts) if len(parts) > 1 else 1,
        height=2.0,
        share=len(parts) > 1,
    )


def alignment(part: Drawn) -> pd.DataFrame:
    """Return how much memory of the VMs drawn lies how at each sample.

    Returns
    -------
    DataFrame
        time_us, aligned, guest_only, host_only (frames of 4 KiB).
    """
    samples = part.result.memory
    mine = samples[samples["vm"].isin(part.vms)]
    sums = mine.groupby("time_us", sort=True)[["aligned", "guest_huge", "host_huge"]].sum()
    made = pd.DataFrame({"aligned": sums["aligned"]})
    made["guest_only"] = sums["guest_huge"] - sums["aligned"]
    made["host_only"] = sums["host_huge"] - sums["aligned"]
    made = made.reset_index()
    made.attrs["units"] = {"time_us": "µs"} | dict.fromkeys(_LABELS, "4 KiB frames")
    return made
