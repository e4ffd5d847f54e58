"""First light: what translation and memory management cost four real programs, native and in VMs.

Four traces of real programs run in four VMs on one host. EPT belongs to Intel CPUs and NPT to AMD's, so each is
compared with native execution on a CPU that has it: a bar's neighbour differs from it in the paging mode and in
nothing else, and no bar shows a machine that does not exist. Bars of different panels differ in the CPU too.

    python experiments/first-light/figure.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

import vmsim
from vmsim.analysis.figures import translation_cycles
from vmsim.analysis.style import figure, save
from vmsim.analysis.tables import compare_modes, cycles_by_cause
from vmsim.cli.screen import print_table
from vmsim.files import replacing
from vmsim.record.comparison import Comparison

HERE: Final = Path(__file__).resolve().parent
RESULTS: Final = HERE.parents[1] / "results" / HERE.name
HOSTS: Final = {"skylake-x": ("native", "ept"), "zen4": ("native", "npt")}
TITLES: Final = {"skylake-x": "Intel Skylake-X", "zen4": "AMD Zen 4"}
COMPARED: Final = {
    "translation_cycles_per_access": "translation",
    "management_cycles_per_access": "memory management",
}


def compare(cpu: str, *, progress: bool = False) -> Comparison:
    """Run the scenario of one CPU natively and in that CPU's nested mode."""
    return vmsim.compare(HERE / f"{cpu}.toml", HOSTS[cpu], progress=progress)


def data(comparisons: dict[str, Comparison] | None = None) -> pd.DataFrame:
    """Return cpu, workload, mode, cause, cycles, accesses, per_access."""
    made = comparisons or {cpu: compare(cpu) for cpu in HOSTS}
    tables = {cpu: cycles_by_cause(each.summary, each.cycles) for cpu, each in made.items()}
    return pd.concat(tables, names=["cpu"]).reset_index(level="cpu").reset_index(drop=True)


def draw(table: pd.DataFrame, axes: Sequence[Axes]) -> None:
    """Draw a panel for each CPU."""
    for ax, cpu in zip(axes, HOSTS, strict=True):
        translation_cycles(table[table["cpu"] == cpu], ax, legend=False)
        ax.set_title(TITLES[cpu])
    axes[1].set_ylabel("")
    handles, labels = axes[1].get_legend_handles_labels()
    figure = axes[0].get_figure(root=True)
    if figure is not None:
        figure.legend(handles, labels, ncols=2, loc="outside upper center")


def main() -> None:
    """Print the comparison; write the figure and the summary into results/first-light."""
    comparisons = {cpu: compare(cpu, progress=True) for cpu in HOSTS}
    for cpu, comparison in comparisons.items():
        for column, what in COMPARED.items():
            table = compare_modes(comparison.summary, column)
            columns = {str(name): "left" if name in ("vm", "workload") else "right" for name in table.columns}
            rows = zip(*(table[name].to_list() for name in table.columns), strict=True)
            print_table(f"{TITLES[cpu]}: {what}, cycles per access", columns, rows)
    for comparison in comparisons.values():
        if comparison.ending:
            sys.exit(comparison.ending.message)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with replacing(RESULTS / "summary.csv") as temporary:
        summaries = pd.concat({cpu: each.summary for cpu, each in comparisons.items()}, names=["cpu"])
        summaries.reset_index(level="cpu").to_csv(temporary, index=False, lineterminator="\n")
    with figure(height=2.9, columns=2, sharey=True) as (fig, axes):
        draw(data(comparisons), axes)
        save(fig, RESULTS / "translation.png", RESULTS / "translation.pdf")
    print(f"The figure is {RESULTS / 'translation.png'}.")


if __name__ == "__main__":
    main()
