"""The columns of every table: their types, units and meaning. docs/reference/tables.md shows the same list."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

__all__ = ["COLUMNS", "MODE", "POINT", "Column", "attributes"]


class Column(NamedTuple):
    """What a column holds.

    Attributes
    ----------
    kind : str
        Its dtype: ``str``, ``int64``, ``float64`` or ``bool``.
    unit : str
        What its values count or measure; empty for names.
    description : str
        What it means.
    """

    kind: str
    unit: str
    description: str


def _text(description: str) -> Column:
    return Column("str", "", description)


def _count(unit: str, description: str) -> Column:
    return Column("int64", unit, description)


def _cycles(description: str) -> Column:
    return Column("int64", "cycles", description)


MODE: Final = _text("the VM's paging mode: native, ept, npt, shadow, agile, paired or vkernel")
_VM: Final = _text("the VM's name")
_TIME: Final = Column("float64", "µs", "the same time in microseconds")

_SUMMARY: Final = {
    "vm": _text("the VM's name, unique in the scenario"),
    "vm_group": _text("the `[[vm]]` table that the VM comes from"),
    "mode": MODE,
    "workload": _text("what the VM ran: a trace's name or a generator's kind"),
    "finished": Column("bool", "yes/no", "whether the VM ran to the end of its workload"),
    "accesses": _count("accesses", "memory accesses that the VM made"),
    "writes": _count("accesses", "those that were writes"),
    "l1_tlb_misses": _count("look-ups", "look-ups that missed the first-level TLB"),
    "l2_tlb_misses": _count("look-ups", "those that missed the second-level TLB too"),
    "walks": _count("walks", "walks of the guest's tables; in mode native, of the only tables"),
    "nested_walks": _count("walks", "walks of the nested tables, for a guest table or for the data page"),
    "ntlb_hits": _count("look-ups", "hits in the nested TLB"),
    "ntlb_misses": _count("look-ups", "misses in the nested TLB"),
    "dirty_walks": _count("walks", "walks for writes that hit a clean or read-only translation; also in `walks`"),
    "ad_updates": _count("entries", "entries in which a walk set the accessed or the dirty flag"),
    "walk_refs": _count("references", "memory references of walks; hits in a page walk cache make none"),
    "l2_tlb_cycles": _cycles("look-ups of the second-level TLB"),
    "walk_guest_cycles": _cycles("walks: references to guest entries (native: all), and the fixed cost of a walk"),
    "walk_nested_cycles": _cycles("walks: references to nested entries, and look-ups of the nested TLB"),
    "walk_cycles": _cycles("walks, both dimensions"),
    "guest_faults": _count("faults", "page faults that the guest kernel handled"),
    "guest_fault_cycles": _cycles("the guest kernel's handling of page faults"),
    "exits": _count("exits", "VM exits, all reasons"),
    "exit_cycles": _cycles("VM exit, monitor and VM entry, without waits"),
    "pool_wait_cycles": _cycles("the vCPU was suspended because its monitor's pool was empty"),
    "host_wait_cycles": _cycles("the vCPU was suspended because the host had no free memory"),
    "pcpu_wait_cycles": _cycles("the vCPU was ready but had no core"),
    "io_wait_cycles": _cycles("the vCPU waited for a device; its buffer was pinned meanwhile"),
    "fault_p50_cycles": _cycles(
        "median time of a fault that left the guest, waits included, within 0.2 %; 0: none did"
    ),
    "fault_p99_cycles": _cycles("99th percentile of the same (nearest rank)"),
    "translation_cycles": _cycles("address translation in hardware: causes `l2_tlb`, `walk_guest`, `walk_nested`"),
    "management_cycles": _cycles(
        "memory management: causes `guest_fault`, `exit`, `pool_wait`, `host_wait`, `swap_wait`, `limit_wait`, "
        "`reclaim`, `guest_swap_wait`, `balloon`, `hotplug`, `khugepaged`, `compaction`, `shootdown`, `lock_wait`"
    ),
    "first_touch_cycles": _cycles("the part of `management_cycles` that first touches took"),
    "total_cycles": _cycles("all causes, from start to finish"),
    "cycles_per_access": Column("float64", "cycles/access", "`total_cycles / accesses`"),
    "translation_cycles_per_access": Column("float64", "cycles/access", "`translation_cycles / accesses`"),
    "management_cycles_per_access": Column("float64", "cycles/access", "`management_cycles / accesses`"),
    "guest_frames": _count("4 KiB frames", "host frames that backed the VM's memory at its end"),
    "table_frames": _count("4 KiB frames", "host frames of its nested page tables; in mode native, of all its tables"),
    "pool_frames": _count("4 KiB frames", "host frames in its monitor's pool"),
    "start_cycle": _count("cycle", "when the VM started, or when its warm-up ended"),
    "finish_cycle": _count("cycle", "when it ended"),
    "software_tlb_hits": _count("look-ups", "hits in the shadow monitor's software TLB"),
    "software_tlb_misses": _count("look-ups", "misses: walks of the guest's tables in software"),
    "software_tlb_saved_cycles": _cycles("what the hits cost less than walks would have"),
    "order_1_failures": _count("blocks", "two-page blocks that the host could not allocate although enough was free"),
    "compactions": _count("blocks", "two-page blocks that the host made by moving pages"),
    "pages_moved": _count("pages", "pages moved for them, of any VM or of the host"),
    "compaction_cycles": _cycles("compaction, failed attempts included"),
    "large_page_failures": _count(
        "blocks", "2M and 1G blocks that the host could not allocate although enough was free"
    ),
}

COLUMNS: Final[Mapping[str, Mapping[str, Column]]] = MappingProxyType(
    {
        "summary": _SUMMARY,
        "cycles": {
            "vm": _VM,
            "cause": _text("what the time was spent on"),
            "cycles": _cycles("time spent on it"),
            "first_touch_cycles": _cycles("the part of it that first touches took"),
            "per_access": Column("float64", "cycles/access", "`cycles / accesses`"),
        },
        "exits": {
            "vm": _VM,
            "reason": _text("why the VM left the guest"),
            "count": _count("exits", "how many"),
            "cycles": _cycles("VM exit, monitor and VM entry, without waits"),
        },
        "walk_references": {
            "vm": _VM,
            "guest_level": _count("level", "level of the guest entry that was read or looked for; 0: the data page"),
            "nested_level": _count("level", "level of the nested entry that was read; 0: the guest entry itself"),
            "served": _text("L1, L2, LLC or DRAM; PWC: a page walk cache held the entry, without a reference"),
            "count": _count("references", "how many"),
            "cycles": _cycles(
                "`count` times the latency of that cache (of DRAM that of the CPU's file, whatever node has it)"
            ),
        },
        "pwc": {
            "vm": _VM,
            "dimension": _text("`guest` or `nested`"),
            "level": _count("level", "level of the entry that was looked up"),
            "hits": _count("look-ups", "look-ups that found it"),
            "misses": _count("look-ups", "look-ups that did not"),
        },
        "data": {
            "vm": _VM,
            "served": _text("L1, L2, LLC or DRAM"),
            "count": _count("references", "data references served there"),
        },
        "pool": {
            "time_cycles": _count("cycle", "when, from the start of the simulation"),
            "time_us": _TIME,
            "vm": _text("whose pool"),
            "event": _text(
                "`grant`, `spare`, `return`; of devices `inflate`, `deflate`, `report`, `hint`, `plug`, `unplug`; "
                "of a shared allocator `reclaim_soft`, `reclaim_hard`, `restore`, `install`"
            ),
            "pages": _count("4 KiB pages", "how many pages changed hands"),
            "level": _count("4 KiB pages", "in the pool afterwards, without those that a suspended vCPU took at once"),
            "host_free": _count("4 KiB frames", "free in the host afterwards"),
        },
        "messages": {
            "time_cycles": _count("cycle", "when the message was sent, from the start of the simulation"),
            "time_us": _TIME,
            "vm": _text("whose monitor"),
            "sender": _text("`monitor` or `host`"),
            "receiver": _text("the other of the two"),
            "kind": _text("what the message asks for or brings"),
            "pages": _count("4 KiB pages", "how many pages it asks for or brings"),
            "cycles": _cycles("from its sending until it has had its effect"),
        },
        "memory": {
            "time_cycles": _count("cycle", "when, from the start of the simulation"),
            "time_us": _TIME,
            "vm": _text("whose memory it is; empty: the whole host's"),
            "resident": _count("4 KiB pages", "of the VM's memory, those that lie in host memory; of the host, frames"),
            "shared": _count("4 KiB pages", "those of them that lie in frames which others read too"),
            "swapped": _count("4 KiB pages", "on the host's swap device"),
            "balloon": _count("4 KiB pages", "in the VM's balloon"),
            "guest_free": _count("4 KiB pages", "that nobody uses, as the guest's kernel knows"),
            "free_resident": _count("4 KiB pages", "those of them that lie in host memory nevertheless"),
            "tables": _count("4 KiB frames", "of page tables that the host or the monitor keeps"),
            "pool": _count("4 KiB frames", "in the monitor's pool"),
            "host_free": _count("4 KiB frames", "free in the host"),
            "some_cycles": _cycles("since the row before of the same VM, in which some vCPU waited for memory"),
            "full_cycles": _cycles("those of them in which no other vCPU could run"),
            "guest_huge": _count("4 KiB pages", "of its memory, those that its kernel maps by pages of 2M or more"),
            "host_huge": _count("4 KiB pages", "those that the host has in such pages"),
            "aligned": _count("4 KiB pages", "those that both have, in the same place"),
        },
        "shadow": {
            "vm": _VM,
            "event": _text("what the monitor did"),
            "count": _count("events", "how often"),
        },
        "pagers": {
            "vm": _VM,
            "pager": _text("`data`; `table`: a shadowed table of level 1; `directory`: one above it"),
            "cpl": _count("privilege level", "0: the guest kernel, 3: its programs"),
            "count": _count("exits", "how many page faults"),
        },
        "dirty": {
            "vm": _VM,
            "time_cycles": _count("cycle", "when the log was read, from the start of the simulation"),
            "time_us": _TIME,
            "pages": _count("4 KiB pages", "pages written to since the reading before"),
            "host_cycles": _cycles("what the reading cost the host"),
            "late_cycles": _cycles("how long after its due time it began"),
        },
        "waits": {
            "vm": _VM,
            "cause": _text("`pool_wait`, `host_wait`, `pcpu_wait`, `io_wait`, or another that the VM may have"),
            "count": _count("waits", "how many"),
            "cycles": _cycles("how long in total"),
        },
        "fault_latency": {
            "vm": _VM,
            "cycles": _cycles("time of one fault, waits included: the mean of a bucket, within 0.2 % of each in it"),
            "count": _count("faults", "faults in the bucket"),
        },
        "fault_kinds": {
            "vm": _VM,
            "kind": _text("what the fault had to do; those of the guest's kernel have others as their parts"),
            "count": _count("faults", "how many"),
            "cycles": _cycles("time of all, waits included"),
            "p50_cycles": _cycles("median of one (nearest rank, within 0.2 %)"),
            "p99_cycles": _cycles("99th percentile of the same"),
            "p99_9_cycles": _cycles("99.9th percentile of the same"),
        },
        "figures": {
            "vm": _text("the VM's name; empty: of the whole run"),
            "component": _text("who counted"),
            "figure": _text("what"),
            "value": _count("cycles or number", "how much: cycles where the component's or the figure's name says so"),
        },
    }
)
"""The columns of each table of a result, in order. Names need no quotes in SQL; a test asks DuckDB and SQLite."""

POINT: Final[Mapping[str, Column]] = MappingProxyType(
    {
        "point": _text("identity of the point: SHA-256 of all that decides its result, in hexadecimal"),
        "replicate": _count("", "number of the replicate, from 0"),
        "seed": _count("", "seed of the simulation"),
        "failure": _text("traceback of the failure"),
    }
)
"""Columns that the tables of a sweep have besides what is varied and the summary."""


def attributes(names: Iterable[str], columns: Mapping[str, Column]) -> dict[Hashable | None, Any]:
    """Return ``DataFrame.attrs`` for a table: ``units`` and ``descriptions`` of its columns by name.

    Parameters
    ----------
    names : iterable of str
        Columns that the table has; those without a description are left out.
    columns : mapping of str to Column
    """
    known = {name: columns[name] for name in names if name in columns}
    return {
        "units": {name: column.unit for name, column in known.items() if column.unit},
        "descriptions": {name: column.description for name, column in known.items()},
    }
