"""The figure of the host's memory by who has it, over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from vmsim.analysis.style import PALETTE
from vmsim.base.errors import InputError
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.plotting.parts import MANY, Drawn, per_panel, stacked
from vmsim.plotting.plot import Sheet
from vmsim.record.result import Result

__all__ = ["draw_layers", "expect_samples", "memory", "owners"]

_SHARED, _TABLES, _OTHER, _FREE = "shared frames", "the host's tables", "other uses", "free"
_GREYS = {_SHARED: "#404040", _TABLES: "#737373", _OTHER: "#a8a8a8", _FREE: "#ececec"}
_MIB = 256  # frames


def memory(parts: Sequence[Drawn]) -> Sheet:
    """Frames of the host by owner, stacked, from the samples of a run."""
    expect_samples(parts)
    table = stacked(parts, lambda part: owners(part.result, part.vms))
    size = max(part.result.scenario.host.memory for part in parts) / (1 << 20)
    used = table[table["owner"] != _FREE].groupby([*(["run"] if "run" in table else []), "time_us"])["frames"].sum()
    top = size if used.max() / _MIB > size / 2 else 1.1 * used.max() / _MIB  # what is used fills the figure
    names = [name for name in dict.fromkeys(table["owner"]) if name not in _GREYS]
    colours = dict(zip(names, PALETTE * (1 + len(names) // len(PALETTE)), strict=False)) | _GREYS

    def draw(rows: pd.DataFrame, ax: Axes) -> None:
        wide = rows.pivot_table(index="time_us", columns="owner", values="frames", sort=False) / _MIB
        there = [name for name in wide.columns if wide[name].any()]
        draw_layers(ax, wide.index.to_numpy() / 1000, {name: (wide[name], colours[name]) for name in there})
        ax.set_ylim(0, top)
        ax.set_ylabel("host memory (MiB)" if top == size else f"host memory\n(MiB of {size:,.0f})")

    return Sheet(
        table,
        lambda axes: per_panel(parts, table, axes, draw),
        "Frames of the host by who has them, as sampled: a VM's own are its memory that nobody shares, its tables and "
        "its monitor's pool.",
        rows=len(parts) if len(parts) > 1 else 1,
        height=2.0,
        share=len(parts) > 1,
    )


def draw_layers(ax: Axes, times: NDArray[np.float64], layers: Mapping[str, tuple[Any, str]]) -> None:
    """Stack values over times in ms, float64[n], by name with its values and colour; the legend is beside them."""
    made = ax.stackplot(
        times,
        *(values for values, _ in layers.values()),
        colors=[colour for _, colour in layers.values()],
        labels=[*layers],
        step="post",
    )
    for layer in made:
        layer.set_edgecolor("white")
        layer.set_linewidth(0.3)
    ax.set_xlim(times[0], max(times[-1], times[0] + 1e-9))
    ax.set_xlabel("simulated time (ms)")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0))


def expect_samples(parts: Sequence[Drawn]) -> None:
    """Refuse runs whose memory nobody has sampled.

    Raises
    ------
    InputError
        One is such.
    """
    for part in parts:
        if not len(part.result.memory):
            raise InputError(
                "The run has no samples of its memory. Set host.samples to a time, as in vmsim run FILE "
                "--set host.samples=1ms --out DIR, and draw that.",
                key="host.samples",
            )


def owners(result: Result, vms: Sequence[str] = ()) -> pd.DataFrame:
    """Return who has the host's frames at each sample.

    VMs are put together by group where they are more than eight, and those that are not in `vms` as "other VMs".

    Returns
    -------
    DataFrame
        time_us, owner, frames (of 4 KiB); at each time they sum to the host's memory.
    """
    samples = result.memory
    host = samples[samples["vm"] == ""].drop_duplicates("time_us", keep="last").set_index("time_us")
    each = samples[samples["vm"] != ""]
    groups = {vm.name: vm.group for vm in result.scenario.vms}
    chosen = [name for name in groups if not vms or name in vms]
    called = {name: name if len(chosen) <= MANY else groups[name] for name in chosen}
    frames = pd.DataFrame(0, index=host.index, columns=list(dict.fromkeys(called.values())), dtype="int64")
    others = pd.Series(0, index=host.index, dtype="int64")
    shared, tables = host["resident"].copy(), host["tables"].copy()
    for vm, rows in each.groupby("vm", sort=False):
        mine = _at(rows.set_index("time_us"), host.index)
        own = mine["resident"] - mine["shared"]
        whole = own + mine["tables"] + mine["pool"]
        shared -= own
        tables -= mine["tables"]
        if str(vm) in called:
            frames[called[str(vm)]] += whole
        else:
            others += whole
    if others.any():
        frames["other VMs"] = others
    frames[_SHARED], frames[_TABLES] = shared.clip(lower=0), tables.clip(lower=0)
    free = host["host_free"]
    size = result.scenario.host.memory >> PAGE_SHIFT
    frames[_OTHER] = (size - free - frames.sum(axis=1)).clip(lower=0)
    frames[_FREE] = free
    long = frames.reset_index().melt("time_us", var_name="owner", value_name="frames")
    made: pd.DataFrame = long.sort_values("time_us", kind="stable", ignore_index=True)
    made.attrs["units"] = {"time_us": "µs", "frames": "4 KiB frames"}
    return made


def _at(rows: pd.DataFrame, times: pd.Index) -> pd.DataFrame:  # type: ignore[type-arg,unused-ignore]
    """Return a VM's memory at some times: as it last was, and nothing before its first sample and after its last."""
    kept = rows[["resident", "shared", "tables", "pool"]]
    kept = kept[~kept.index.duplicated(keep="last")]
    known = kept.reindex(kept.index.union(times)).ffill().reindex(times)
    outside = (times < kept.index[0]) | (times > kept.index[-1])
    known[outside] = 0
    return known.fillna(0).astype("int64")
