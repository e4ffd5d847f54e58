"""Traps: how a store to a guarded page table is made, and what that does to a program's time.

Emulating a store is cheaper than mapping the table and stepping over the instruction, which takes two exits; letting
stores through and bringing the table into step when the guest invalidates is cheaper still. None of it comes near EPT
where tables are edited often. Short-lived processes leave frames behind that were tables, and the kernel clears each
with 512 stores, all of which trap: there a limit on stores, after which a table's shadow goes, takes emulation from
tens of times the native run to about unsync's time. Where a table is edited while it is in use (churn), the same limit
throws away what is filled again at once, and costs more than it saves. KVM had the limit for every table before unsync
came (kvm_mmu_pte_write in arch/x86/kvm/mmu.c); since then it spares the lowest level (detect_write_flooding).

    python experiments/traps/figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.style import PALETTE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, height=2.5)
# paging mode, trap and write_flood: label, colour
BARS: Final = {
    ("shadow", "single-step", 0): ("single-step", PALETTE[5]),
    ("shadow", "emulate", 0): ("emulate", PALETTE[1]),
    ("shadow", "emulate", 3): ("emulate, write_flood = 3", PALETTE[6]),
    ("shadow", "unsync", 3): ("unsync", PALETTE[0]),
    ("ept", "unsync", 3): ("EPT", "#999999"),
}


def data() -> pd.DataFrame:
    """Return vm, paging, trap, write_flood, and relative (run time over that of the native run)."""
    table = EXPERIMENT.table()
    native = table[table["paging"] == "native"].set_index("vm")["total_cycles"]
    table["relative"] = table["total_cycles"] / table["vm"].map(native)
    return table[["vm", "paging", "trap", "write_flood", "relative", "exits", "exit_cycles"]]


def draw(table: pd.DataFrame, ax: Axes) -> None:
    """Draw a group of bars for each program."""
    programs = [*dict.fromkeys(table["vm"])]
    width = 0.84 / len(BARS)
    for place, ((paging, trap, flood), (label, colour)) in enumerate(BARS.items()):
        here = table[(table["paging"] == paging) & (table["trap"] == trap) & (table["write_flood"] == flood)]
        heights = here.set_index("vm")["relative"].reindex(programs)
        left = [number + (place - (len(BARS) - 1) / 2) * width for number in range(len(programs))]
        ax.bar(left, heights - 1, width, bottom=1, color=colour, label=label)
    ax.set_yscale("log")
    ax.set_ylim(1, 100)
    ax.set_yticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    ax.minorticks_off()
    ax.grid(axis="y")
    ax.set_xticks(range(len(programs)), programs)
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel("run time over native (ratio)")
    fig = ax.get_figure(root=True)
    if fig is not None:
        fig.legend(loc="outside upper left", ncols=3)


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
