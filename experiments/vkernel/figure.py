"""Vkernel: what a guest's kernel as a process of the host costs, beside shadow paging and hardware's second dimension.

A vkernel's hardware walks are native ones, and an edit of a page table costs nothing; but all that leaves a guest's
process, a page fault as well as a system call, goes through two address spaces of the host, which empties the TLB, and
the guest's kernel must tell the host of each page that it takes away. Where mappings come and go all the time (churn)
that is less than half of what a shadow monitor takes that sees every store to a table, as KVM did in 2007, but a fifth
to a quarter more than what KVM takes since 2008, which leaves the lowest tables to the guest (unsync), and four times
what the second dimension does. Of more than 33 pages at once a guest tells by a flush of all it has (Linux), the host's
map is empty again, and a vkernel takes more than twice what either shadow does. Of real programs' time it takes 9 to 15
% more than KVM's shadow, a fifth to two fifths more of what is drawn: their faults are few, but a vkernel's system
calls find the TLB empty, so that it walks up to 26 times as often as the program does natively.

The cycles of the vkernel's steps are guesses, for nobody has published any. In churn of small blocks the second
dimension comes first and KVM's shadow of 2007 last whether they are half or twice as much; but at half of them a
vkernel takes less than KVM's shadow since 2008. Which of these two is better for such a program is not known.

    python experiments/vkernel/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.figures import translation_cycles
from vmsim.analysis.style import WIDE
from vmsim.cli.experiment import make
from vmsim.record.causes import MANAGEMENT, TRANSLATION
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(
    Path(__file__).parent, width=WIDE, height=4.6, rows=2, columns=2, sharey="col", width_ratios=[1, 3.6]
)
OLD: Final = "shadow 2007"  # the preset kvm-2007
TITLES: Final = {"skylake-x": "Intel Skylake-X", "zen4": "AMD Zen 4"}
_CYCLES: Final = {f"{cause}_cycles": cause for cause in (*TRANSLATION, *MANAGEMENT)}


def data() -> pd.DataFrame:
    """Return cpu, workload, mode, cause, cycles, accesses, per_access."""
    table = EXPERIMENT.table().rename(columns=_CYCLES)
    table.loc[table["preset"] == "kvm-2007", "mode"] = OLD
    keys = ["cpu", "workload", "mode", "accesses"]
    causes = [cause for cause in _CYCLES.values() if cause in table]
    long = table.melt(keys, causes, var_name="cause", value_name="cycles")
    long["per_access"] = long["cycles"] / long["accesses"]
    return long


def draw(table: pd.DataFrame, axes: Sequence[Sequence[Axes]]) -> None:
    """Draw a row of panels for each CPU: churn, and the real programs on a scale of their own."""
    for row, (cpu, title) in zip(axes, TITLES.items(), strict=True):
        for ax, churn in zip(row, (True, False), strict=True):
            translation_cycles(
                table[(table["cpu"] == cpu) & ((table["workload"] == "churn") == churn)], ax, legend=False
            )
        row[0].set_title(title, loc="left")
        row[0].yaxis.set_major_formatter("{x:,.0f}")
        row[1].set_ylabel("")
    handles, labels = axes[0][1].get_legend_handles_labels()
    if drawing := axes[0][0].get_figure(root=True):
        drawing.legend(handles, labels, ncols=len(labels), loc="outside upper center")


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
