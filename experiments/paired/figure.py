"""Paired: which layout of paired page tables wins, by share of VMs, density of tables and fragmentation.

Contiguous halves spare a VM's updates the second walk, and cost every process a second page for each table; separate
trees cost a process nothing until it becomes a VM. So it is contiguous from some share of VMs on, the smaller the more
pages a process maps in each table. A VM's own tables are always dense, whatever its programs do: its kernel packs its
memory, and the sparse tables of a guest are pages like any other to the host. Fragmentation moves the line where there
are many tables, once they want more blocks of two pages than there are: each then costs a page moved. Where the nested
tables have the format of page tables (NPT), one tree does for both: it takes half the tables, spares each update of a
VM a store, and costs a process that is no VM what it would cost without a second table.

    python experiments/paired/figure.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.base.units import parse_size
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

EXPERIMENT: Final = Experiment(Path(__file__).parent, "layouts", width=WIDE, height=4.8, rows=2, columns=2)
LAYOUTS: Final = ("contiguous", "pointer", "separate")  # that EPT can have
ALL: Final = (*LAYOUTS, "shared")
_COLOURS: Final = dict(zip(ALL, PALETTE, strict=False))
_MARKS: Final = dict(zip(ALL, ("o-", "x:", "s-", "d-"), strict=True))
_SPAN: Final = 2 << 20  # bytes that a page table maps
_COUNTS: Final = ("table_frames", "order_1_failures", "compactions", "pages_moved", "compaction_cycles")

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def data() -> Tables:
    """Return a row for each point of the three sweeps: what all processes of the host did and took together.

    Columns are layout, fragmentation, share (of processes that are VMs), density (pages in a table of a process), pages
    (written to), cycles (of faults and exits, for each of those), and counts of the summary.
    """
    made, one = EXPERIMENT.table(), EXPERIMENT.table("shared")
    for each in (made, one):
        each["share"] = each["guests"] / (each["guests"] + each["others"])
        each["density"] = _SPAN // each["stride"].map(parse_size)
    return (
        _by_point(made, ["layout", "fragmentation", "share", "density"]),
        _by_point(EXPERIMENT.table("fragmentation"), ["layout", "fragmentation"]),
        _by_point(one, ["layout", "share", "density"]),
    )


def _by_point(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    rows["cycles"] = rows["guest_fault_cycles"] + rows["exit_cycles"]
    table = (
        rows.rename(columns={"accesses": "pages"}).groupby(keys, as_index=False)[["pages", "cycles", *_COUNTS]].sum()
    )
    table["cycles"] /= table["pages"]
    return table


def line(table: pd.DataFrame, fragmentation: float) -> pd.Series:
    """Return by density the share of VMs above which contiguous tables cost fewer cycles than separate ones.

    Between the shares that were simulated it is interpolated.
    """
    cycles = table[table["fragmentation"] == fragmentation].pivot_table(
        index=["density", "share"], columns="layout", values="cycles"
    )
    spared = (cycles["separate"] - cycles["contiguous"]).unstack()
    return spared.apply(lambda row: float(np.interp(0, row, row.index)), axis=1)


def draw(tables: Tables, axes: Sequence[Axes]) -> None:
    """Draw who wins, the memory that tables take, what fragmentation does, and what one table for both would spare."""
    table, sparse, one = tables
    lines, memory, fragmentation, shared = np.asarray(axes).flat
    _draw_lines(table, lines)
    _draw_memory(table, memory)
    _draw_fragmentation(sparse, fragmentation)
    _draw_shared(one, shared)


def _draw_lines(table: pd.DataFrame, ax: Axes) -> None:
    for fragmentation, style in ((0.0, "-"), (0.95, "--"), (1.0, ":")):
        shares = line(table, fragmentation)
        if not fragmentation:
            ax.fill_between(shares.index, shares, 1, color=_COLOURS["contiguous"], alpha=0.18, lw=0)
            ax.fill_between(shares.index, 0, shares, color=_COLOURS["separate"], alpha=0.18, lw=0)
        ax.plot(shares.index, shares, style, color="#000000", label=f"{fragmentation:.0%}")
    ax.legend(title="of free memory in single pages", loc="lower left", title_fontsize=6.5, ncols=3, columnspacing=1)
    ax.text(480, 0.92, "contiguous", color=_COLOURS["contiguous"], ha="right")
    ax.text(1.1, 0.55, "separate", color=_COLOURS["separate"])
    ax.set(ylim=(0, 1), ylabel="processes that are VMs", title="Which layout takes the fewest cycles")
    _densities(ax)
    _percent(ax.yaxis)


def _draw_memory(table: pd.DataFrame, ax: Axes) -> None:
    rows = table[(table["share"] == 0) & (table["fragmentation"] == 0)]
    for layout in LAYOUTS:
        part = rows[rows["layout"] == layout]
        frames = part["table_frames"] / part["pages"]
        ax.plot(part["density"], frames, _MARKS[layout], ms=3, color=_COLOURS[layout], label=layout)
    ax.text(480, 1.9, "pointer takes 0.2% of\nthe host's memory more", color="#555555", ha="right", va="top")
    ax.legend(loc="lower left")
    ax.set(yscale="log", ylabel="pages of tables for each page", title="Memory where no process is a VM")
    _densities(ax)


def _draw_fragmentation(sparse: pd.DataFrame, ax: Axes) -> None:
    cycles = sparse.pivot_table(index="fragmentation", columns="layout", values="cycles")
    for layout in LAYOUTS:
        ax.plot(
            cycles.index,
            cycles[layout] - cycles["separate"],
            _MARKS[layout],
            ms=3,
            color=_COLOURS[layout],
            label=layout,
            clip_on=False,
        )
    rows = sparse[(sparse["layout"] == "contiguous") & (sparse["order_1_failures"] > 0)]
    more = rows["cycles"].to_numpy() - cycles.loc[rows["fragmentation"], "separate"].to_numpy()
    failed = 2 * rows["order_1_failures"] / rows["table_frames"]
    for x, y, part in zip(rows["fragmentation"], more, failed, strict=True):
        ax.annotate(f"{part:.0%}", (x, y), (4, -6), textcoords="offset points", fontsize=6.5, annotation_clip=False)
    ax.set(xlim=(0, 1), ylim=(-30, 900), xlabel="free memory in single pages")
    ax.set(ylabel="cycles a page more than separate", title="Sparse tables, half of the processes VMs")
    ax.text(0.03, 820, "%: order-1 failures", fontsize=6.5)
    _percent(ax.xaxis)


def _draw_shared(one: pd.DataFrame, ax: Axes) -> None:
    cycles = one[one["density"] == one["density"].max()].pivot_table(index="share", columns="layout", values="cycles")
    for layout in LAYOUTS:
        more = cycles[layout] - cycles["shared"]
        ax.plot(cycles.index, more, _MARKS[layout], ms=3, color=_COLOURS[layout], label=layout, clip_on=False)
    frames = one[(one["share"] == 1) & (one["density"] == one["density"].max())].set_index("layout")["table_frames"]
    ax.text(
        0.03, 96, f"pages of tables, all VMs: {frames['shared']} shared, {frames['contiguous']} otherwise", fontsize=6.5
    )
    ax.legend(loc="upper left", bbox_to_anchor=(0, 0.74))
    ax.set(xlim=(0, 1), ylim=(-3, 105), xlabel="processes that are VMs", ylabel="cycles a page more than shared")
    ax.set_title("One table for both, on NPT (zen4)")
    _percent(ax.xaxis)


def _densities(ax: Axes) -> None:
    ax.set(xscale="log", xlim=(0.93, 550), xlabel="pages in each table of a process")
    ax.set_xticks([1, 8, 64, 512], ["1", "8", "64", "512"])
    ax.minorticks_off()


def _percent(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
