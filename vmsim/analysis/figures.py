"""Figures. Each draws one table on the axes that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import vmsim.analysis.plain_matplotlib  # noqa: F401  (before matplotlib)

# isort: split

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from vmsim.analysis.bars import Part, stacked_bars
from vmsim.record.causes import CAUSES, MANAGEMENT, TRANSLATION

__all__ = [
    "STACK",
    "exits_by_reason",
    "memory_by_kind",
    "modes_side_by_side",
    "pool_level",
    "references_heatmap",
    "translation_cycles",
]

STACK: Final = {
    name: (name, "host_wait") if name == "pool_wait" else (name,)
    for name in (*TRANSLATION, *MANAGEMENT)
    if name != "host_wait"
}
"""The parts of a bar of `translation_cycles`, from the bottom up, and the causes that each adds up."""

_LABELS: Final = {name: cause.label for name, cause in CAUSES.items()} | {"pool_wait": "wait for memory"}
_INK: Final = 0.55
_KINDS: Final = {
    "guest": ("guest memory", "#d9d9d9"),
    "table": ("page tables", "#737373"),
    "pool": ("the monitor's pool", "#404040"),
}
# Paul Tol, "Colour Schemes" (SRON/EPS/TN/09-002), the muted one: none of these is a colour of a cause of cycles.
_MUTED: Final = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499")
_HATCHES: Final = ("", "//////", "......")
_FRAMES_PER_MIB: Final = 256


def translation_cycles(table: pd.DataFrame, ax: Axes, *, legend: bool = True, by: str = "workload") -> None:
    """Draw what translation and memory management cost: a stacked bar for each workload and mode.

    Parameters
    ----------
    table : DataFrame
        workload, mode, cause, per_access: as from `analysis.tables.cycles_by_cause`. Causes that are neither
        translation nor memory management (compute, data, scheduling) are left out.
    ax : Axes
        To draw on.
    legend : bool, optional
        Say what the colours are, above the axes.
    by : str, optional
        ``workload`` or ``vm_group``: the column that names groups of bars.
    """
    workloads, modes = (dict.fromkeys(table[key]) for key in (by, "mode"))
    values = table.pivot_table(index=[by, "mode"], columns="cause", values="per_access", aggfunc="sum")
    parts = [Part(_LABELS[part], CAUSES[part].colour, causes) for part, causes in STACK.items()]
    stacked_bars(values.reindex(list(workloads), level=0), parts, modes, ax)
    ax.set_ylabel("cycles per access")
    if legend and ax.containers:
        ax.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)


def memory_by_kind(table: pd.DataFrame, ax: Axes, *, by: str = "workload") -> None:
    """Draw what host memory each mode takes: a stacked bar for each workload and mode.

    Parameters
    ----------
    table : DataFrame
        workload, mode, kind, frames: as from `analysis.tables.memory_by_kind`.
    ax : Axes
        To draw on.
    by : str, optional
        As of `translation_cycles`.
    """
    values = table.pivot_table(index=[by, "mode"], columns="kind", values="frames", sort=False) / _FRAMES_PER_MIB
    parts = [Part(label, colour, (kind,)) for kind, (label, colour) in _KINDS.items()]
    stacked_bars(values, parts, dict.fromkeys(table["mode"]), ax)
    ax.set_ylabel("MiB at the end")


def exits_by_reason(table: pd.DataFrame, ax: Axes, *, reasons: Sequence[str], by: str = "workload") -> None:
    """Draw how often each mode leaves its guests: a stacked bar for each workload and mode.

    Parameters
    ----------
    table : DataFrame
        workload, mode, reason, per_access: as from `analysis.tables.exits_by_reason`.
    ax : Axes
        To draw on.
    reasons : sequence of str
        From the bottom up; the n-th has the n-th colour, whether it occurs or not.
    by : str, optional
        As of `translation_cycles`.
    """
    values = 1000 * table.pivot_table(index=[by, "mode"], columns="reason", values="per_access", sort=False)
    looks = [(colour, hatch) for hatch in _HATCHES for colour in _MUTED]
    parts = [Part(reason, colour, (reason,), hatch) for reason, (colour, hatch) in zip(reasons, looks, strict=False)]
    stacked_bars(values, parts, dict.fromkeys(table["mode"]), ax)
    ax.set_ylabel("exits per 1,000 accesses")


def modes_side_by_side(
    cycles: pd.DataFrame,
    memory: pd.DataFrame,
    exits: pd.DataFrame,
    axes: NDArray[np.object_],
    *,
    by: str = "workload",
) -> None:
    """Draw a comparison of modes: rows of cycles by cause, memory by kind and exits by reason, a column a workload.

    Parameters
    ----------
    cycles, memory, exits : DataFrame
        As from `analysis.tables.cycles_by_cause`, `memory_by_kind` and `exits_by_reason`.
    axes : Axes[3, n]
        To draw on; each has a scale of its own.
    by : str, optional
        As of `translation_cycles`.
    """
    reasons = [reason for reason in dict.fromkeys(exits["reason"]) if reason]
    for column, name in enumerate(dict.fromkeys(cycles[by])):
        translation_cycles(cycles[cycles[by] == name], axes[0, column], legend=False, by=by)
        memory_by_kind(memory[memory[by] == name], axes[1, column], by=by)
        exits_by_reason(exits[exits[by] == name], axes[2, column], reasons=reasons, by=by)
    for row in axes:
        named = {label: handle for ax in row for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        order = [*_LABELS.values(), *(label for label, _ in _KINDS.values()), *reasons]
        labels = sorted(named, key=order.index, reverse=True)  # as the bars are stacked
        row[-1].legend([named[label] for label in labels], labels, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        for ax in row[1:]:
            ax.set_ylabel("")


def pool_level(table: pd.DataFrame, ax: Axes) -> None:
    """Draw how many pages each monitor's pool had over time.

    The table has the level after each transfer, which the line holds until the next one: how vCPUs take pages one by
    one in between is not in it.

    Parameters
    ----------
    table : DataFrame
        `Result.pool`: time_us, vm, event, pages, level.
    ax : Axes
        To draw on.
    """
    kept = table[table["event"] != "return"]
    for vm in dict.fromkeys(kept["vm"]):
        mine = kept[kept["vm"] == vm]
        ax.step(mine["time_us"] / 1000, mine["level"], where="post", label=vm)
    ax.grid(axis="y")
    ax.set_xlabel("simulated time (ms)")
    ax.set_ylabel("pages in the pool\nafter each transfer")
    ax.set_ylim(bottom=0)
    if ax.lines:
        ax.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)


def references_heatmap(table: pd.DataFrame, ax: Axes) -> None:
    """Draw where in the walk the references are: share of all by guest level and nested level.

    Parameters
    ----------
    table : DataFrame
        `Result.walk_references`: guest_level, nested_level, served, count; of one VM or of several. Look-ups that hit
        in a page walk cache make no reference and are left out.
    ax : Axes
        To draw on.
    """
    made = table[table["served"] != "PWC"]
    guests = range(max([*made["guest_level"], 1]), -1, -1)
    nesteds = range(max([*made["nested_level"], 0]), -1, -1)
    counts = (
        made.pivot_table(index="guest_level", columns="nested_level", values="count", aggfunc="sum", fill_value=0)
        .reindex(index=list(guests), columns=list(nesteds), fill_value=0)
        .to_numpy(dtype=float)
    )
    shares = counts / max(1.0, counts.sum())
    image = ax.imshow(shares, cmap="Blues", vmin=0, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if share:
            text = f"{share:.1%}" if share >= 0.001 else "<0.1%"
            ink = "white" if share > _INK * shares.max() else "black"
            ax.text(column, row, text, ha="center", va="center", color=ink)
    ax.set_xticks(range(len(nesteds)), [f"nL{level}" if level else "guest's\nentry" for level in nesteds])
    ax.set_yticks(range(len(guests)), [f"gL{level}" if level else "data" for level in guests])
    ax.tick_params(length=0)
    ax.set_xlabel("entry read")
    ax.set_ylabel("on the way to")
    ax.spines[:].set_visible(False)
    if ax.figure is not None:
        bar = ax.figure.colorbar(image, ax=ax, format=PercentFormatter(1.0, decimals=0))
        bar.outline.set_visible(False)
        bar.set_label("share of references")
