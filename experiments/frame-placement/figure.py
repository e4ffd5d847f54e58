"""Where frames lie: what that does to the length of a walk, and by how much it differs from placement to placement.

The same program on the same machine: its pages lie in the order in which it touched them first, or of their
addresses, or in single frames in no order, and its page tables side by side or scattered over 64 MiB, as after some
uptime. TLBs miss as often each time. Under EPT the guest's frames decide which nested entries share a cache line, and
which of the guest's tables share a nested one, so there it matters most; a shadow's tables come from the monitor's
pool, wherever the guest's lie.

    python experiments/frame-placement/figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment
from vmsim.sweeps.statistics import summarize

EXPERIMENT: Final = Experiment(Path(__file__).parent, width=WIDE, height=2.3)
PLACES: Final = {
    ("lazy", False, False): "first touch",
    ("eager", False, False): "by address",
    ("lazy", True, False): "tables scattered",
    ("lazy", False, True): "pages scattered",
    ("lazy", True, True): "both scattered",
}
FIRST: Final = "first touch"
MODES: Final = ("native", "ept", "shadow")


def data() -> pd.DataFrame:
    """Return by mode and placement how much longer a walk is than by first touch, in %, over the replicates.

    Returns
    -------
    DataFrame
        paging, place, n, mean, std, low and high (the ends of the interval of 95 %), and `cycles`, the mean of a walk.
    """
    table = EXPERIMENT.table()
    keys = zip(table["populate"], table["tables"].astype(str) != "0", table["single"] > 0, strict=True)
    table["place"] = [PLACES[key] for key in keys]
    table["cycles"] = (table["walk_guest_cycles"] + table["walk_nested_cycles"]) / table["walks"]
    first = table[table["place"] == FIRST].set_index(["paging", "replicate"])["cycles"]
    base = first.loc[list(zip(table["paging"], table["replicate"], strict=True))].to_numpy()
    table["longer"] = 100 * (table["cycles"] / base - 1)
    made = summarize(table, ["paging", "place"], "longer").round(6)
    return made.merge(table.groupby(["paging", "place"], sort=False)["cycles"].mean().round(6).reset_index())


def draw(table: pd.DataFrame, ax: Axes) -> None:
    """Draw what each placement adds to a walk, with its interval, a colour for each mode."""
    places = [place for place in PLACES.values() if place != FIRST]
    first = table[table["place"] == FIRST].set_index("paging")["cycles"]
    for number, mode in enumerate(MODES):
        mine = table[table["paging"] == mode].set_index("place").loc[places]
        at = np.arange(len(places)) + (number - 1) * 0.27
        ends = mine[["low", "high"]].sub(mine["mean"], axis=0).abs().to_numpy().T
        label = f"{'EPT' if mode == 'ept' else mode} ({first[mode]:.0f} cycles)"
        ax.bar(at, mine["mean"], 0.25, yerr=ends, color=PALETTE[number], label=label, capsize=2)
    ax.set_xticks(range(len(places)), places)
    ax.set_ylabel("longer walk (%)")
    ax.axhline(0, color="black", linewidth=0.8)
    ax.legend(title="a walk, by first touch")
    ax.grid(axis="y")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
