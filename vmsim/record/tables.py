"""From an outcome's plain numbers to tables. `vmsim.record.columns` says what every column means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from vmsim.record.causes import MANAGEMENT, TRANSLATION, in_order
from vmsim.record.columns import COLUMNS, attributes
from vmsim.record.outcome import Outcome, VmOutcome

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SERVED", "TABLES", "build", "latencies", "percentile", "percentiles", "rows"]

SERVED: Final = ("L1", "L2", "LLC", "DRAM", "PWC")
"""Where a reference was served, in the order of `machine.caches.Served`."""

_LATENCIES: Final = {"fault_latency": "fault", "swap_latency": "swap-in"}
_PERCENTS: Final[Mapping[str, int | Fraction]] = {"p50": 50, "p99": 99, "p99_9": Fraction(999, 10)}
_PYTHON: Final = {"str": str, "int64": int, "float64": float, "bool": bool}
_DIMENSIONS: Final = ("guest", "nested")


def build(name: str, outcome: Outcome) -> pd.DataFrame:
    """Return one of `TABLES`, made from an outcome.

    Parameters
    ----------
    name : str
        A key of `TABLES`.
    outcome : Outcome
        What the simulation handed over.
    """
    import pandas as pd

    columns, make = TABLES[name]
    made = make(outcome)
    table = pd.DataFrame(
        {
            column: pd.Series([row[place] for row in made], dtype=kind)
            for place, (column, kind) in enumerate(columns.items())
        }
    )
    table.attrs = attributes(columns, COLUMNS[name])
    return table


def rows(name: str, outcome: Outcome) -> list[dict[str, Any]]:
    """Return the rows of one of `TABLES` as plain Python values, without pandas, which takes a while to import."""
    columns, make = TABLES[name]
    plain = {column: _PYTHON[kind] for column, kind in columns.items()}
    return [{column: plain[column](value) for column, value in zip(columns, row, strict=True)} for row in make(outcome)]


def latencies(outcome: Outcome) -> list[dict[str, Any]]:
    """Return how long faults took, by VM and kind.

    Returns
    -------
    list of dict
        vm; kind: "fault", whatever leaves the guest for a page or an entry, waits included, or "swap-in", of those the
        part in which the host brings a page back; count; and p50, p99, p99_9 in cycles.
    """
    return [
        percentiles(vm.name, _LATENCIES.get(component, component), counts)
        for vm in outcome.vms
        for component, histogram in vm.figures.histograms().items()
        if (counts := histogram.means())
    ]


def percentiles(vm: str, kind: str, counts: Mapping[int, int]) -> dict[str, Any]:
    """Return a row of `latencies`: how many cycles so many faults of a kind took."""
    values = {name: percentile(counts, percent) for name, percent in _PERCENTS.items()}
    return {"vm": vm, "kind": kind, "count": sum(counts.values()), **values}


def percentile(counts: Mapping[int, int], percent: int | Fraction) -> int:
    """Return the smallest value that at least `percent` % of the values do not exceed; 0 if there are none.

    Parameters
    ----------
    counts : mapping of int to int
        How often each value occurred.
    percent : int or Fraction
        Above 0, to 100.
    """
    rank = -(-sum(counts.values()) * percent // 100)
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= rank:
            return value
    return 0


_SUMMARY: Final[Mapping[str, Callable[[VmOutcome], Any]]] = {
    "vm": lambda vm: vm.name,
    "vm_group": lambda vm: vm.group,
    "mode": lambda vm: vm.mode,
    "workload": lambda vm: vm.workload,
    "finished": lambda vm: vm.finished,
    "accesses": lambda vm: vm.counters["accesses"],
    "writes": lambda vm: vm.counters["writes"],
    "l1_tlb_misses": lambda vm: vm.counters["l1_tlb_misses"],
    "l2_tlb_misses": lambda vm: vm.counters["l2_tlb_misses"],
    "walks": lambda vm: vm.counters["walks"],
    "nested_walks": lambda vm: vm.counters["nested_walks"],
    "ntlb_hits": lambda vm: vm.counters["ntlb_hits"],
    "ntlb_misses": lambda vm: vm.counters["ntlb_misses"],
    "dirty_walks": lambda vm: vm.counters["dirty_walks"],
    "ad_updates": lambda vm: vm.counters["ad_updates"],
    "walk_refs": lambda vm: vm.refs[:, :, : SERVED.index("PWC")].sum(),
    "l2_tlb_cycles": lambda vm: _cycles(vm, "l2_tlb"),
    "walk_guest_cycles": lambda vm: _cycles(vm, "walk_guest"),
    "walk_nested_cycles": lambda vm: _cycles(vm, "walk_nested"),
    "walk_cycles": lambda vm: _cycles(vm, "walk_guest", "walk_nested"),
    "guest_faults": lambda vm: vm.guest_faults,
    "guest_fault_cycles": lambda vm: _cycles(vm, "guest_fault"),
    "exits": lambda vm: sum(count for count, _ in vm.exits.values()),
    "exit_cycles": lambda vm: _cycles(vm, "exit"),
    "pool_wait_cycles": lambda vm: _cycles(vm, "pool_wait"),
    "host_wait_cycles": lambda vm: _cycles(vm, "host_wait"),
    "pcpu_wait_cycles": lambda vm: _cycles(vm, "pcpu_wait"),
    "io_wait_cycles": lambda vm: _cycles(vm, "io_wait"),
    "fault_p50_cycles": lambda vm: percentile(vm.fault_latency, 50),
    "fault_p99_cycles": lambda vm: percentile(vm.fault_latency, 99),
    "translation_cycles": lambda vm: _cycles(vm, *TRANSLATION),
    "management_cycles": lambda vm: _cycles(vm, *MANAGEMENT),
    "first_touch_cycles": lambda vm: sum(vm.first_touch.values()),
    "total_cycles": lambda vm: sum(vm.cycles.values()),
    "cycles_per_access": lambda vm: _per_access(vm, sum(vm.cycles.values())),
    "translation_cycles_per_access": lambda vm: _per_access(vm, _cycles(vm, *TRANSLATION)),
    "management_cycles_per_access": lambda vm: _per_access(vm, _cycles(vm, *MANAGEMENT)),
    "guest_frames": lambda vm: vm.memory.get("guest", 0),
    "table_frames": lambda vm: vm.memory.get("table", 0),
    "pool_frames": lambda vm: vm.memory.get("pool", 0),
    "start_cycle": lambda vm: vm.start,
    "finish_cycle": lambda vm: vm.finish,
    "software_tlb_hits": lambda vm: _figure(vm, "software_tlb", "hits"),
    "software_tlb_misses": lambda vm: _figure(vm, "software_tlb", "misses"),
    "software_tlb_saved_cycles": lambda vm: _figure(vm, "software_tlb", "saved_cycles"),
    "order_1_failures": lambda vm: _figure(vm, "host", "order_1_failures"),
    "compactions": lambda vm: _figure(vm, "compaction", "compactions"),
    "pages_moved": lambda vm: _figure(vm, "compaction", "pages_moved"),
    "compaction_cycles": lambda vm: _figure(vm, "compaction", "cycles"),
    "large_page_failures": lambda vm: _figure(vm, "host", "large_page_failures"),
}


def _cycles(vm: VmOutcome, *causes: str) -> int:
    return sum(vm.cycles.get(cause, 0) for cause in causes)


def _figure(vm: VmOutcome, component: str, figure: str) -> int:
    return vm.figures.named(component).get(figure, 0)


def _per_access(vm: VmOutcome, cycles: int) -> float:
    """Divide integers only: the quotient is then the nearest float on every platform."""
    return int(cycles) / max(1, int(vm.counters["accesses"]))


Rows = list[tuple[Any, ...]]


def _summary(outcome: Outcome) -> Rows:
    return [tuple(_SUMMARY[column](vm) for column in COLUMNS["summary"]) for vm in outcome.vms]


def _exits(outcome: Outcome) -> Rows:
    return [(vm.name, reason, *figures) for vm in outcome.vms for reason, figures in sorted(vm.exits.items())]


def _references(outcome: Outcome) -> Rows:
    latency = (*outcome.latency, *[0] * len(SERVED))
    return [
        (vm.name, guest, nested, SERVED[served], count, count * latency[served])
        for vm in outcome.vms
        for guest, nested, served, count in _nonzero(vm.refs)
    ]


def _pwc(outcome: Outcome) -> Rows:
    return [
        (vm.name, name, level, int(hits), int(misses))
        for vm in outcome.vms
        for dimension, name in enumerate(_DIMENSIONS)
        for level, (misses, hits) in enumerate(vm.pwc[dimension])
        if hits or misses
    ]


def _data(outcome: Outcome) -> Rows:
    return [(vm.name, SERVED[served], count) for vm in outcome.vms for served, count in _nonzero(vm.data)]


def _pool(outcome: Outcome) -> Rows:
    return [
        (each.time, each.time * 10**6 / outcome.frequency, each.vm, each.what, each.pages, each.level, each.host_free)
        for each in outcome.transfers
    ]


def _messages(outcome: Outcome) -> Rows:
    names = {vm.index: vm.name for vm in outcome.vms}
    return [
        (
            each.time,
            each.time * 10**6 / outcome.frequency,
            names[each.vm],
            *(("host", "monitor") if each.kind.from_host else ("monitor", "host")),
            each.kind.name.lower(),
            each.pages,
            each.cycles,
        )
        for each in outcome.messages
    ]


def _memory(outcome: Outcome) -> Rows:
    return sorted(
        (
            (each.time, each.time * 10**6 / outcome.frequency, name, *each[1:])
            for name, samples in outcome.samples.items()
            for each in samples
        ),
        key=lambda row: row[0],
    )


def _shadow(outcome: Outcome) -> Rows:
    return [(vm.name, event, count) for vm in outcome.vms for event, count in vm.figures.named("shadow").items()]


def _pagers(outcome: Outcome) -> Rows:
    return [
        (vm.name, pager, int(cpl), count)
        for vm in outcome.vms
        for name, count in vm.figures.named("pagers").items()
        for pager, cpl in (name.split("_"),)
    ]


def _dirty(outcome: Outcome) -> Rows:
    return [
        (vm.name, each.time, each.time * 10**6 / outcome.frequency, each.pages, each.cycles, each.late)
        for vm in outcome.vms
        for each in vm.dirty
    ]


def _waits(outcome: Outcome) -> Rows:
    return [
        (vm.name, cause, count, cycles.get(cause, 0))
        for vm in outcome.vms
        for cycles in (vm.cycles,)
        for cause, count in sorted(vm.waits.items())
    ]


def _causes(outcome: Outcome) -> Rows:
    return [
        (vm.name, cause, cycles[cause], first.get(cause, 0), _per_access(vm, cycles[cause]))
        for vm in outcome.vms
        for cycles, first in ((vm.cycles, vm.first_touch),)
        for cause in in_order(cycles)
    ]


def _fault_latency(outcome: Outcome) -> Rows:
    return [(vm.name, cycles, count) for vm in outcome.vms for cycles, count in sorted(vm.fault_latency.items())]


def _fault_kinds(outcome: Outcome) -> Rows:
    return [
        (vm.name, kind, sum(counts.values()), vm.figures.kinds[kind].total, *_percents(counts))
        for vm in outcome.vms
        for kind, counts in vm.fault_kinds.items()
    ]


def _percents(counts: Mapping[int, int]) -> Iterator[int]:
    yield from (percentile(counts, percent) for percent in _PERCENTS.values())


def _figures(outcome: Outcome) -> Rows:
    return [(vm, *row) for vm, row in outcome.rows()]


def _nonzero(counts: Any) -> Rows:
    """Return (*index, count) of each count that is not zero, in index order, as plain ints."""
    return [(*map(int, index), int(counts[tuple(index)])) for index in np.argwhere(counts)]


_ROWS: Final[Mapping[str, Callable[[Outcome], Rows]]] = {
    "summary": _summary,
    "cycles": _causes,
    "exits": _exits,
    "walk_references": _references,
    "pwc": _pwc,
    "data": _data,
    "pool": _pool,
    "messages": _messages,
    "memory": _memory,
    "shadow": _shadow,
    "pagers": _pagers,
    "dirty": _dirty,
    "waits": _waits,
    "fault_latency": _fault_latency,
    "fault_kinds": _fault_kinds,
    "figures": _figures,
}
TABLES: Final[Mapping[str, tuple[Mapping[str, str], Callable[[Outcome], Rows]]]] = MappingProxyType(
    {
        name: ({column: about.kind for column, about in columns.items()}, _ROWS[name])
        for name, columns in COLUMNS.items()
    }
)
"""Columns with their dtypes, and the rows, of each table by name; `vmsim.record.columns` says what they mean."""
