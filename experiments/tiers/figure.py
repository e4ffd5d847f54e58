"""Fast memory and a slow tier below it: what moving pages between them is worth.

A program works in a window of 1 MiB that moves on through its memory and comes round again. Of what does not fit into
8 MiB of DRAM, half and two thirds of the references go to the slow tier if pages stay where they were allocated.
Promotion alone makes it worse: hot pages are found, each by a fault, and there is no room for them. With demotion they
come and cold ones go, and 3 % of the references are slow; with a twentieth of DRAM kept free, as TPP does, no
promotion has to wait for room, and an access takes a fifth to a quarter less. Where all fits, that costs 4 %.

    python experiments/tiers/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.base.units import parse_size
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.2, columns=2)
POLICIES: Final = ("stay", "promote", "promote, demote", "and keep 5% free")


def policy_of(row: pd.Series) -> str:
    """Return what moves pages in a run."""
    if float(row["free"]) > 0:
        return POLICIES[3]
    if str(row["demotion"]).lower() == "true":
        return POLICIES[2]
    return POLICIES[0] if str(row["delay"]) == "1000s" else POLICIES[1]


def data() -> pd.DataFrame:
    """Return by footprint in MiB and policy the cycles of an access, the share of slow references, and promotions."""
    table = EXPERIMENT.table()
    table["mib"] = [parse_size(size) / 2**20 for size in table["footprint"].astype(str)]
    table["policy"] = [policy_of(row) for _, row in table.iterrows()]
    table["slow"] = table["slow_data"] / (table["slow_data"] + table["fast_data"])
    return table[["mib", "policy", "cycles_per_access", "slow", "promoted", "hints"]].sort_values(["mib", "policy"])


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw the cycles of an access, and where DRAM's references go."""
    left, right = axes
    sizes = (5, 2.6, 3, 3)  # on the right the second lies on the first
    for policy, colour, mark, size in zip(POLICIES, PALETTE, "os^D", sizes, strict=False):
        rows = table[table["policy"] == policy]
        look: dict[str, Any] = {"color": colour, "marker": mark, "markersize": size}
        left.plot(rows["mib"], rows["cycles_per_access"], label=policy, **look)
        right.plot(rows["mib"], 100 * rows["slow"], **look)
    left.set_ylabel("cycles per access")
    left.legend()
    right.set_ylabel("references to slow memory (%)")
    for ax in axes:
        ax.set_xlabel("footprint (MiB); DRAM is 8 MiB")
        ax.set_xticks(sorted({*table["mib"]}))
        ax.set_ylim(0, None)
        ax.grid(axis="y")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
