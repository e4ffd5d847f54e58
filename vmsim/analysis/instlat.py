"""The figure of ``vmsim validate instlat``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import vmsim.analysis.plain_matplotlib  # noqa: F401  (before matplotlib)

# isort: split

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import COLUMN, PALETTE, figure, save

__all__ = ["draw", "picture"]


def draw(table: pd.DataFrame, ax: Axes) -> None:
    """Draw what was measured on one CPU, with the band that counts as agreement, and what was predicted.

    Parameters
    ----------
    table : DataFrame
        cpu, kib, measured, slack, predicted: a row for each footprint.
    ax : Axes
        To draw on.
    """
    mib = table["kib"] / 1024
    low, high = table["measured"] - table["slack"], table["measured"] + table["slack"]
    ax.fill_between(mib, low, high, color="#dddddd", lw=0, label="agreement")
    ax.plot(mib, table["measured"], "o-", color=PALETTE[7], markersize=2.5, label="measured")
    ax.plot(mib, table["predicted"], "s-", color=PALETTE[5], markersize=2.5, label="simulated")
    ax.set_xscale("log", base=2)
    ticks = [size for size in (0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if mib.min() / 2 < size <= mib.max()]
    ax.set_xticks(ticks, [f"{size:g}" for size in ticks])
    ax.minorticks_off()
    ax.set_ylim(bottom=min(0.0, float(table["measured"].min())))
    ax.set_title(str(table["cpu"].iloc[0]))


def picture(curves: Iterable[Mapping[str, Any]], path: Path, *, force: bool = True) -> None:
    """Draw a panel for each CPU and write them to a file.

    Raises
    ------
    InputError
        A suffix other than .png, .pdf and .svg, the file is there and `force` is false, or it cannot be written.
    """
    table = pd.DataFrame(list(curves))
    cpus = list(dict.fromkeys(table["cpu"]))
    with figure(width=COLUMN, height=1.7 * len(cpus) + 0.4, rows=len(cpus), squeeze=False) as (made, axes):
        for ax, cpu in zip(axes[:, 0], cpus, strict=True):
            draw(table[table["cpu"] == cpu], ax)
            ax.set_ylabel("cycles of a load")
        axes[-1, 0].set_xlabel("footprint (MiB)")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        made.legend(handles, labels, ncols=3, loc="outside upper center")
        save(made, path, force=force)
