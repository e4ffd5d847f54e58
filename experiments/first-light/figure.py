"""First light: what translation and memory management cost four real programs, native and in VMs.

Four traces of real programs run in four VMs on one host. EPT belongs to Intel CPUs and NPT to AMD's, so each is
compared with native execution on a CPU that has it: a bar's neighbour differs from it in the paging mode and in
nothing else, and no bar shows a machine that does not exist. Bars of different panels differ in the CPU too.

    python experiments/first-light/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.figures import translation_cycles
from vmsim.analysis.tables import compare_modes
from vmsim.cli.experiment import make
from vmsim.cli.screen import print_table
from vmsim.record.tables import MANAGEMENT, TRANSLATION
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, "translation", height=2.9, columns=2, sharey=True)
TITLES: Final = {"skylake-x": "Intel Skylake-X", "zen4": "AMD Zen 4"}
COMPARED: Final = {
    "translation_cycles_per_access": "translation",
    "management_cycles_per_access": "memory management",
}
_CYCLES: Final = {f"{cause}_cycles": cause for cause in (*TRANSLATION, *MANAGEMENT)}


def data() -> pd.DataFrame:
    """Return cpu, workload, mode, cause, cycles, accesses, per_access."""
    table = EXPERIMENT.table().rename(columns=_CYCLES)
    keys = ["cpu", "workload", "mode", "accesses"]
    long = table.melt(keys, [*_CYCLES.values()], var_name="cause", value_name="cycles")
    long["per_access"] = long["cycles"] / long["accesses"]
    return long[["cpu", "workload", "mode", "cause", "cycles", "accesses", "per_access"]]


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw a panel for each CPU."""
    for ax, (cpu, title) in zip(axes, TITLES.items(), strict=True):
        translation_cycles(table[table["cpu"] == cpu], ax, legend=False)
        ax.set_title(title)
    axes[1].set_ylabel("")
    handles, labels = axes[1].get_legend_handles_labels()
    figure = axes[0].get_figure(root=True)
    if figure is not None:
        figure.legend(handles, labels, ncols=2, loc="outside upper center")


def show(table: pd.DataFrame) -> None:
    """Print what is compared."""
    for cpu, title in TITLES.items():
        for column, what in COMPARED.items():
            compared = compare_modes(table[table["cpu"] == cpu], column)
            columns = {str(name): "left" if name in ("vm", "workload") else "right" for name in compared.columns}
            rows = zip(*(compared[name].to_list() for name in compared.columns), strict=True)
            print_table(f"{title}: {what}, cycles per access", columns, rows)


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
    show(EXPERIMENT.table())
