"""Figures of runs: cycles by cause, walks, pools, latencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vmsim.analysis.bars import Part, stacked_bars
from vmsim.analysis.figures import references_heatmap
from vmsim.base.errors import InputError
from vmsim.plotting.parts import MANY, Drawn, look_of, per_panel, stacked
from vmsim.plotting.plot import Sheet
from vmsim.record.causes import cause_of, in_order
from vmsim.record.tables import percentile
from vmsim.scenario.modes import paging_modes

__all__ = ["breakdown", "latency", "pool", "walk"]

_BARS = 10  # that one column has room for


def breakdown(parts: Sequence[Drawn]) -> Sheet:
    """Cycles per access, split by cause: a bar for each VM, or for each group where they are many."""
    several = len(parts) > 1
    by = "vm" if max(len(part.vms) for part in parts) <= MANY and not several else "vm_group"

    def of(part: Drawn) -> pd.DataFrame:
        known = part.table("summary")[["vm", "vm_group", "mode", "accesses"]].drop_duplicates()
        joined = part.table("cycles").drop(columns="per_access").merge(known, on="vm")
        keys = list(dict.fromkeys([by, "mode", "cause"]))
        made: pd.DataFrame = joined.groupby(keys, sort=False, as_index=False)[["cycles", "accesses"]].sum()
        made["cycles_per_access"] = made["cycles"] / made["accesses"].clip(lower=1)
        return made

    table = stacked(parts, of)
    named = table.assign(
        group="", bar=[f"{vm} ({_labels(mode)})" for vm, mode in zip(table[by], table["mode"], strict=True)]
    )
    keys = [by, "run"] if several else ["group", "bar"]
    values = named.pivot_table(index=keys, columns="cause", values="cycles_per_access", aggfunc="sum", sort=False)
    bars = [Part(cause_of(name).label, cause_of(name).colour, (name,)) for name in in_order(values.columns)]

    def draw(axes: Any) -> None:
        ax = axes[0, 0]
        stacked_bars(values, bars, dict.fromkeys(named[keys[1]]), ax)
        ax.set_ylabel("cycles per access")
        handles, labels = ax.get_legend_handles_labels()
        if handles:
            ax.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0))

    what = "VM" if by == "vm" else "group of VMs"
    return Sheet(
        table,
        draw,
        f"Cycles per access of each {what}, by cause; all causes together are the whole time from start to end.",
        height=2.4,
        wide=len(values) > _BARS,
    )


def walk(parts: Sequence[Drawn]) -> Sheet:
    """Walk references by position: rows are tables of the guest, columns those of the host."""

    def of(part: Drawn) -> pd.DataFrame:
        keys = ["guest_level", "nested_level", "served"]
        return part.table("walk_references").groupby(keys, as_index=False)[["count", "cycles"]].sum()

    walking = [part for part in parts if of(part)["count"].sum()]
    if not walking:
        raise InputError("No VM has made a walk of page tables, so there is nothing to draw.")
    table = stacked(walking, of)
    columns = min(2, len(walking))
    return Sheet(
        table,
        lambda axes: per_panel(walking, table, axes, references_heatmap),
        "Where in page walks the memory references are, as shares of all; gL and nL are levels of the guest's and the "
        "nested tables, 1 the lowest. Entries that page walk caches held are left out.",
        rows=-(-len(walking) // columns),
        columns=columns,
        height=2.3,
        wide=columns > 1,
    )


def pool(parts: Sequence[Drawn]) -> Sheet:
    """Pages in pools after each transfer: a line for each VM."""

    def of(part: Drawn) -> pd.DataFrame:
        table = part.table("pool")
        groups = part.table("summary").set_index("vm")["vm_group"]
        made = table[table["event"] != "return"].assign(vm_group=lambda rows: rows["vm"].map(groups))
        return made[["time_us", "vm", "vm_group", "event", "pages", "level"]]

    filled = [part for part in parts if len(of(part))]
    if not filled:
        raise InputError(
            "No monitor has had pages of the host for a pool, so there is nothing to draw. Native programs have none, "
            'nor has a VM with pool.supply = "fault".'
        )
    table = stacked(filled, of)
    many = max(len(part.vms) for part in filled) > MANY
    looks = look_of(list(table["vm_group" if many else "vm"]))

    def line(rows: pd.DataFrame, ax: Axes) -> None:
        for vm, mine in rows.groupby("vm", sort=False):
            name = str(mine["vm_group"].iloc[0]) if many else str(vm)
            ax.step(mine["time_us"] / 1000, mine["level"], where="post", label=name, **looks[name])
        ax.grid(axis="y")
        ax.set_ylim(0, 1.08 * max(1, int(table["level"].max())))
        ax.set_xlabel("simulated time (ms)")
        ax.set_ylabel("pages in the pool")
        _legend(ax)

    return Sheet(
        table,
        lambda axes: per_panel(filled, table, axes, line),
        "Pages of 4 KiB in each monitor's pool after each transfer between it and the host.",
        rows=-(-len(filled) // 2) if len(filled) > 2 else 1,
        columns=min(2, len(filled)),
        share=True,
        wide=len(filled) > 1,
    )


def latency(parts: Sequence[Drawn]) -> Sheet:
    """The distribution of the time that faults take: share of the faults that took so long at most."""
    several = len(parts) > 1
    many = max(len(part.vms) for part in parts) > MANY

    def of(part: Drawn) -> pd.DataFrame:
        table = part.table("fault_latency")
        if several:
            table = table.assign(vm="all VMs")
        elif many:
            table = table.assign(vm=table["vm"].map(part.table("summary").set_index("vm")["vm_group"]))
        made: pd.DataFrame = table.groupby(["vm", "cycles"], sort=True, as_index=False)[["count"]].sum()
        made["us"] = made["cycles"] * 1e6 / part.result.facts.frequency
        made["share"] = made.groupby("vm")["count"].cumsum() / made.groupby("vm")["count"].transform("sum")
        return made

    table = stacked(parts, of)
    if not len(table):
        raise InputError("No fault has left a guest, so there is nothing to draw.")
    key = "run" if several else "vm"
    looks = look_of(list(table[key]))

    def draw(axes: Any) -> None:
        ax = axes[0, 0]
        for name, rows in table.groupby(key, sort=False):
            times, shares = rows["us"].to_numpy(), rows["share"].to_numpy()
            counts = dict(zip(rows["cycles"], rows["count"], strict=True))
            p99 = percentile(counts, 99) / rows["cycles"].iloc[0] * times[0]
            label = f"{name} (99 %: {_us(p99)})"
            ax.step(np.append(times[:1], times), np.append(0.0, shares), where="post", label=label, **looks[str(name)])
        ax.set_xscale("log")
        ax.set_ylim(0, 1.02)
        ax.axhline(0.99, color="#999999", linewidth=0.6, zorder=0)
        ax.grid(axis="x")
        ax.set_xlabel("time of a fault, waits included (µs)")
        ax.set_ylabel("share of faults\nthat take so long at most")
        _legend(ax, ncols=1)

    return Sheet(
        table,
        draw,
        "Cumulative distribution of the time of faults that left the guest, waits included; the line is at 99 %.",
    )


def _labels(mode: str) -> str:
    known = paging_modes()
    return known[mode].label or mode if mode in known else mode


def _us(value: float) -> str:
    return f"{value:.3g} µs" if value < 1000 else f"{value / 1000:.3g} ms"


def _legend(ax: Axes, ncols: int = 2) -> None:
    """Name each line once, above the axes."""
    handles, labels = ax.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    if named:
        ax.legend(
            [*named.values()], [*named], ncols=ncols, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2
        )
