"""The sections of a run, or of a comparison: its VMs, where their cycles went, walks, memory, latencies, exits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from typing import Any, Final

import pandas as pd

from vmsim.analysis.style import PALETTE
from vmsim.base.errors import InputError
from vmsim.plotting.memory import memory
from vmsim.plotting.parts import Drawn
from vmsim.plotting.plot import Sheet
from vmsim.plotting.runs import breakdown, latency, pool, walk
from vmsim.record.causes import cause_of, in_order
from vmsim.record.comparison import Comparison
from vmsim.record.result import Result
from vmsim.reporting.charts import Series, areas, bars, lines
from vmsim.reporting.parts import Section, figure, table

__all__ = ["line_looks", "sections_of"]

_SUMMARY: Final = {
    "vm": "VM",
    "mode": "mode",
    "workload": "workload",
    "accesses": "accesses",
    "cycles_per_access": "cycles per access",
    "translation_cycles_per_access": "translation per access",
    "management_cycles_per_access": "management per access",
    "l2_tlb_misses": "L2 TLB misses",
    "walk_refs": "walk references",
    "guest_faults": "guest faults",
    "exits": "VM exits",
    "fault_p99_cycles": "99th percentile of faults (cycles)",
}
_COLOURS: Final = tuple(colour for colour in PALETTE if colour not in ("#F0E442", "#000000"))  # on both grounds
_DASHES: Final = ("", "6 3", "2 3", "8 3 2 3")
_FREE: Final = "free"
_GREYS: Final = {"shared frames": "#5a5a5a", "the host's tables": "#7f7f7f", "other uses": "#a8a8a8", _FREE: "#d9d9d9"}
_MIB: Final = 256  # frames


def sections_of(found: Result | Comparison) -> list[Section]:
    """Return the sections of a report."""
    parts = Drawn.of(found, ())
    makers: dict[str, tuple[str, Callable[[list[Drawn]], str]]] = {
        "cycles": ("Where the cycles went", _cycles),
        "walks": ("Walk references by position", _walks),
        "pools": ("Page pools", _pools),
        "memory": ("The host's memory", _memory),
        "latency": ("How long faults took", _latency),
    }
    summary = found.summary[[name for name in _SUMMARY if name in found.summary]]
    made = [Section("vms", "VMs", table(summary, "VMs", _SUMMARY))]
    for key, (title, make) in makers.items():
        try:
            made.append(Section(key, title, make(parts)))
        except InputError as error:  # there is nothing of it
            made.append(Section(key, title, f'<p class="soft">{escape(str(error))}</p>'))
    exits = found.exits[found.exits["count"] > 0]
    if len(exits):
        made.append(Section("exits", "VM exits", table(exits, "VM exits")))
    results = list(found.results.values()) if isinstance(found, Comparison) else [found]
    text = escape(results[0].scenario.to_toml())
    whole = f"<details><summary>The whole scenario, as TOML</summary><pre>{text}</pre></details>"
    return [*made, Section("scenario", "Scenario", whole)]


def _cycles(parts: list[Drawn]) -> str:
    sheet = breakdown(parts)
    keys = [name for name in ("run", "vm", "vm_group") if name in sheet.table]
    several = "run" in keys
    causes = in_order(sheet.table.loc[sheet.table["cycles"] > 0, "cause"])
    rows = []
    order = keys[::-1] if several else keys
    for name, mine in sheet.table.groupby(order, sort=False):
        label = ", ".join(map(str, name)) if not several else f"{name[0]}, {name[1]}"
        values = mine.set_index("cause")["cycles_per_access"]
        made = [(cause_of(cause).label, cause_of(cause).colour, float(values.get(cause, 0.0))) for cause in causes]
        rows.append((label if several else f"{label} ({mine['mode'].iloc[0]})", made))
    legend = [(cause_of(cause).label, cause_of(cause).colour, "fill") for cause in causes]
    chart = bars(rows, "cycles per access", "Cycles per access, by cause: a bar for each")
    return figure(chart, sheet.caption, sheet.table, legend)


def _walks(parts: list[Drawn]) -> str:
    sheet = walk(parts)
    made = []
    for title, rows in _by_run(sheet.table):
        there = rows[rows["served"] != "PWC"]
        rows = there.groupby(["guest_level", "nested_level"])["count"].sum()
        wide = (100 * rows / max(1, rows.sum())).unstack(fill_value=0.0)
        wide = wide.sort_index(ascending=False).sort_index(axis=1, ascending=False)
        wide.columns = [f"nL{level} (%)" if level else "guest's entry (%)" for level in wide.columns]
        wide.insert(0, "on the way to", [f"gL{level}" if level else "data" for level in wide.index])
        made.append(f"<h3>{escape(title)}</h3>" if title else "")
        made.append(table(wide.reset_index(drop=True), f"Walk references {title}"))
    return "".join([*made, f"<p class='soft'>{escape(sheet.caption)}</p>"])


def _pools(parts: list[Drawn]) -> str:
    return _over_time(pool(parts), "level", "pages in the pool")


def _over_time(sheet: Sheet, value: str, label: str) -> str:
    made = []
    names = list(dict.fromkeys(sheet.table["vm"]))
    looks = line_looks(names)
    for title, rows in _by_run(sheet.table):
        series = [
            Series(str(vm), list(zip(mine["time_us"] / 1000, mine[value], strict=True)), *looks[str(vm)])
            for vm, mine in rows.groupby("vm", sort=False)
        ]
        legend = [(each.name, each.colour, each.dash) for each in series]
        chart = lines(series, "simulated time (ms)", label, f"{label} over time {title}", step=True)
        made.append(f"<h3>{escape(title)}</h3>" if title else "")
        made.append(figure(chart, sheet.caption, rows, legend))
    return "".join(made)


def _memory(parts: list[Drawn]) -> str:
    sheet = memory(parts)
    owners = list(dict.fromkeys(sheet.table["owner"]))
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(owners)} | _GREYS
    made = []
    for title, rows in _by_run(sheet.table):
        wide = rows.pivot_table(index="time_us", columns="owner", values="frames", sort=False) / _MIB
        wide = wide[[name for name in wide.columns if wide[name].any()]]
        size = float(wide.sum(axis=1).max())
        used = float(wide.drop(columns=_FREE, errors="ignore").sum(axis=1).max())
        layers = {str(name): wide[name].to_list() for name in wide.columns}
        labels = "simulated time (ms)", f"MiB of {size:,.0f}"
        top = size if used > size / 2 else 1.1 * used
        times = (wide.index.to_numpy() / 1000).tolist()
        chart = areas(times, layers, colours, labels, f"Host memory by owner {title}", top=top)
        made.append(f"<h3>{escape(title)}</h3>" if title else "")
        made.append(figure(chart, sheet.caption, rows, [(name, colours[name], "fill") for name in layers]))
    return "".join(made)


def _latency(parts: list[Drawn]) -> str:
    sheet = latency(parts)
    key = "run" if "run" in sheet.table else "vm"
    looks = line_looks(list(dict.fromkeys(sheet.table[key])))
    series = [
        Series(str(name), [(rows["us"].iloc[0], 0.0), *zip(rows["us"], rows["share"], strict=True)], *looks[str(name)])
        for name, rows in sheet.table.groupby(key, sort=False)
    ]
    chart = lines(
        series, "time of a fault (µs)", "share of faults", "Distribution of fault times", step=True, log_x=True
    )
    caption = sheet.caption.partition(";")[0] + "."
    return figure(chart, caption, sheet.table, [(each.name, each.colour, each.dash) for each in series])


def _by_run(data: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    if "run" not in data:
        yield "", data
        return
    for name, rows in data.groupby("run", sort=False):
        yield str(name), rows.drop(columns="run")


def line_looks(names: list[str]) -> dict[str, tuple[str, str]]:
    """Return colour and dashes of lines by name: neighbours differ in both, for who sees no colours."""
    return {
        str(name): (_COLOURS[place % len(_COLOURS)], _DASHES[(place + place // len(_COLOURS)) % len(_DASHES)])
        for place, name in enumerate(names)
    }
