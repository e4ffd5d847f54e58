"""The figure of sensitivity indices."""

from __future__ import annotations

from typing import Final

import vmsim.analysis.plain_matplotlib  # noqa: F401  (before matplotlib)

# isort: split

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE

__all__ = ["sensitivity_bars"]

_BARS: Final = {
    "ST": ("ST_conf", "total effect", PALETTE[0]),
    "S1": ("S1_conf", "alone", PALETTE[4]),
    "mu_star": ("mu_star_conf", "mean effect μ*", PALETTE[0]),
    "sigma": (None, "spread of effects σ", PALETTE[4]),
}


def sensitivity_bars(table: pd.DataFrame, ax: Axes, *, legend: bool = True) -> None:
    """Draw how much each parameter matters for one response, the most important on top, with confidence intervals.

    Parameters
    ----------
    table : DataFrame
        Rows of one response of `vmsim.sweeps.sensitivity.Sensitivity.indices`.
    ax : Axes
        To draw on.
    legend : bool, optional
        Say what the colours are.
    """
    parts = [index for index in _BARS if index in table.columns]
    places = np.arange(len(table), dtype=float)[::-1]
    height = 0.8 / len(parts)
    for number, index in enumerate(parts):
        confidence, label, colour = _BARS[index]
        ax.barh(
            places + height * ((len(parts) - 1) / 2 - number),
            table[index],
            height * 0.92,
            xerr=None if confidence is None else table[confidence],
            color=colour,
            edgecolor="black",
            linewidth=0.3,
            error_kw={"elinewidth": 0.7, "capsize": 1.5, "capthick": 0.7},
            label=label,
        )
    ax.set_yticks(places, list(table["parameter"]))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    response = str(table["response"].iloc[0]).replace("_", " ")
    if not table[parts].to_numpy().any():
        ax.text(0.5, 0.5, "the same at all points", ha="center", va="center", transform=ax.transAxes)
        ax.set_xticks([0])
    if "ST" in table.columns:
        ax.set_xlabel(f"share of the variance of\n{response}")
        ax.set_xlim(min(0.0, float((table["S1"] - table["S1_conf"]).min())), None)
    else:
        ax.set_xlabel(f"change of {response}\nacross the range")
        ax.set_xlim(left=0)
    if legend:
        ax.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
