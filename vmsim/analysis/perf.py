"""What ``perf`` and ``kvm_stat`` counted on a real machine, beside what simulated modes count.

Read are ``perf stat`` (its table, and ``-x`` with any separator), ``perf kvm stat report`` and ``kvm_stat`` (``-1`` and
``-b``). Events are matched with counters here by their names (Intel SDM and perfmon tables; AMD PPR; Linux
``include/trace/events/kvm.h``); runs differ in length, so that ratios are compared, never counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vmsim.base.errors import InputError
from vmsim.base.files import printable, read_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EVENTS", "QUANTITIES", "REASONS", "Counted", "read_counts", "side_by_side"]

EVENTS: Final[dict[str, str]] = {
    r"cycles|cpu-cycles|cpu_clk_unhalted\.thread": "cycles",
    r"mem_(inst|uops)_retired\.all_(loads|stores)|ls_dispatch\.(ld|store)_dispatch": "accesses",
    r"dtlb-(loads|stores)": "accesses",
    r"dtlb_(load|store)_misses\.stlb_hit": "stlb_hits",
    r"dtlb_(load|store)_misses\.miss_causes_a_walk|ls_l1_d_tlb_miss\.all_l2_miss": "stlb_misses",
    r"ls_l1_d_tlb_miss\.all": "l1_misses",
    r"dtlb_(load|store)_misses\.walk_completed": "walks",
    r"dtlb-(load|store)-misses": "walks",
    r"dtlb_(load|store)_misses\.(walk_pending|walk_duration)": "walk_cycles",
    r"dtlb_(load|store)_misses\.walk_active": "walk_active",
    r"ept\.walk_(pending|cycles)": "nested_cycles",
    r"page-faults|faults": "faults",
    r"minor-faults|major-faults": "faults",
    r"kvm:kvm_exit|kvm_exit|exits": "exits",
}
"""Events by what they count, as patterns of their whole names, without ``:u`` and the like.

What several events of one pattern count in parts (loads and stores) is added up; of several patterns for one thing the
first that is there counts.
"""

REASONS: Final[dict[str, tuple[str, ...]]] = {
    "EPT_VIOLATION": ("EPT_VIOLATION",),
    "NPF": ("NPF",),
    "WRITE_PROTECT": ("EPT_VIOLATION", "NPF", "EXCEPTION_NMI", "EXCP_BASE"),
    "PML_FULL": ("PML_FULL",),
    "HOST_FAULT": ("EXCEPTION_NMI", "EXCP_BASE"),
    "SHADOW_FILL": ("EXCEPTION_NMI", "EXCP_BASE"),
    "TRUE_FAULT": ("EXCEPTION_NMI", "EXCP_BASE"),
    "PT_WRITE": ("EXCEPTION_NMI", "EXCP_BASE"),
    "PT_READ": ("EXCEPTION_NMI", "EXCP_BASE"),
    "DEBUG": ("EXCEPTION_NMI", "EXCP_BASE"),
    "NX_SPLIT": ("EPT_VIOLATION", "NPF"),
    "INVLPG": ("INVLPG",),
    "CR3": ("CR_ACCESS", "WRITE_CR3"),
    "IO": ("IO_INSTRUCTION", "IOIO", "EPT_MISCONFIG"),
    "IPI": ("APIC_WRITE", "MSR_WRITE", "MSR", "AVIC_INCOMPLETE_IPI"),
    "INTERRUPT": ("EXTERNAL_INTERRUPT", "INTR", "EOI_INDUCED"),
    "KICK": ("EXTERNAL_INTERRUPT", "INTR"),
    "DIRTY_LOG": ("EXTERNAL_INTERRUPT", "INTR"),
    "NX_RECOVERY": ("EXTERNAL_INTERRUPT", "INTR"),
    "VMCALL": ("VMCALL", "VMMCALL"),
}
"""Our exit reasons, and KVM's that such an exit has, on Intel and on AMD: what ``kvm:kvm_exit`` and ``perf kvm stat``
name (arch/x86/include/uapi/asm/vmx.h, svm.h). Several of ours have one of KVM's: these are compared as a sum."""


@dataclass
class Counted:
    """What was counted on a real machine.

    Attributes
    ----------
    counts : dict of str to float
        By what is counted: values of `EVENTS`.
    exits : dict of str to (float, float)
        By KVM's reason, how many, and the mean ns of one (0 where that was not measured).
    unknown : list of str
        Events that have no counterpart here.
    missing : list of str
        Events that were asked for and not counted.
    """

    counts: dict[str, float] = field(default_factory=dict)
    exits: dict[str, tuple[float, float]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def read_counts(paths: list[Path]) -> Counted:
    """Read files of counters, each of any of the known forms.

    Raises
    ------
    InputError
        A file cannot be read, or nothing in it is a counter.
    """
    found = Counted()
    events: dict[str, float] = {}
    for path in paths:
        text = read_text(path, "file of counters")
        before = len(events) + len(found.exits) + len(found.missing)
        _read(text, events, found)
        if len(events) + len(found.exits) + len(found.missing) == before:
            raise InputError(
                f"{printable(path)}: no counters are in it; expected what perf stat (with or without -x), perf kvm "
                "stat report or kvm_stat printed."
            )
    for pattern, what in EVENTS.items():
        mine = [event for event in events if re.fullmatch(pattern, event)]
        values = [events.pop(event) for event in mine]
        if mine and what not in found.counts:
            found.counts[what] = sum(values)
    found.unknown += events
    if found.exits and "exits" not in found.counts:
        found.counts["exits"] = sum(count for count, _ in found.exits.values())
    return found


_NUMBER: Final = r"[\d][\d,. '\u202f]*\d|\d"
_PLAIN: Final = re.compile(rf"^\s*({_NUMBER}|<not \w+>)\s+(?:msec\s+)?([A-Za-z][\w.:/=,-]*)(?:\s|$)")
_KVM_STAT: Final = re.compile(r"^\s*([a-z_]+)(?:\(([A-Z0-9_]+)\))?\s+(\d+)(?:\s+[\d.]+)?(?:\s+\d+)?\s*$")
_KVM_REPORT: Final = re.compile(r"^\s*([A-Z][A-Z0-9_]+)\s+(\d+)\s+[\d.]+%\s+[\d.]+%\s+[\d.]+us\s+[\d.]+us\s+([\d.]+)us")


def _read(text: str, events: dict[str, float], found: Counted) -> None:
    """Take in the counters of a text."""
    for line in text.splitlines():
        if row := _KVM_REPORT.match(line):
            found.exits[row[1]] = (float(row[2]), 1000 * float(row[3]))
        elif (row := _KVM_STAT.match(line)) and (row[1].startswith(("kvm", "exits")) or row[2]):
            if row[2]:
                found.exits[row[2]] = (float(row[3]), 0.0)
            else:
                events[row[1]] = events.get(row[1], 0.0) + float(row[3])
        elif pair := _of_perf(line):
            name, count = pair
            if count is None:
                found.missing.append(name)
            else:
                events[name] = events.get(name, 0.0) + count


def _of_perf(line: str) -> tuple[str, float | None] | None:
    """Return an event's name and count from a line of ``perf stat``, of either form."""
    for separator in (",", ";", "\t", "|", ":"):
        cells = line.strip().split(separator)
        if len(cells) >= 4 and re.fullmatch(r"[\d.]+|<not \w+>", cells[0]) and re.match(r"[A-Za-z]", cells[2]):
            return _name(cells[2]), None if cells[0].startswith("<") else float(cells[0])
    if row := _PLAIN.match(line):
        if row[1].startswith("<"):
            return _name(row[2]), None
        digits = re.sub(r"[^\d.]", "", row[1].replace(",", ""))
        if row[2] != "seconds" and re.fullmatch(r"\d+(\.\d+)?", digits):
            return _name(row[2]), float(digits)
    return None


def _name(event: str) -> str:
    """Return an event's name without its unit (``cpu/…/``) and its modifiers (``:u``)."""
    inside = re.fullmatch(r"\w+/(?:event=)?([^/]+)/\w*", event)
    return re.sub(r":[ukhGHpPSDe]+$", "", inside[1] if inside else event).lower()


def _share(part: str, whole: str, scale: float) -> Callable[[Mapping[str, float]], float | None]:
    def of(counts: Mapping[str, float]) -> float | None:
        return scale * counts[part] / counts[whole] if part in counts and counts.get(whole) else None

    return of


QUANTITIES: Final[dict[str, Callable[[Mapping[str, float]], float | None]]] = {
    "L1 TLB misses per 1,000 accesses": _share("l1_misses", "accesses", 1e3),
    "L2 TLB misses per 1,000 accesses": _share("stlb_misses", "accesses", 1e3),
    "walks per 1,000 accesses": _share("walks", "accesses", 1e3),
    "cycles of a walk": _share("walk_cycles", "walks", 1.0),
    "walks, % of all cycles": _share("walk_cycles", "cycles", 100.0),
    "walks, % of all cycles (walk_active)": _share("walk_active", "cycles", 100.0),
    "nested part of walks, %": _share("nested_cycles", "walk_cycles", 100.0),
    "page faults per 1,000,000 accesses": _share("faults", "accesses", 1e6),
    "exits per 1,000,000 accesses": _share("exits", "accesses", 1e6),
}
"""Ratios that are compared, each of counts by name; None where one was not counted."""


def _complete(counts: Mapping[str, float]) -> dict[str, float]:
    """Return counts with those that follow from others."""
    whole = dict(counts)
    if "stlb_hits" in whole and "stlb_misses" in whole:
        whole.setdefault("l1_misses", whole["stlb_hits"] + whole["stlb_misses"])
    if "nested_cycles" in whole and "walk_cycles" in whole:
        whole["walk_cycles"] += whole["nested_cycles"]  # dtlb_*.walk_pending leaves out what ept.walk_pending has
    return whole


def _simulated(summary: pd.DataFrame) -> dict[str, float]:
    """Return the same counts of a mode, of all VMs together."""
    total = summary.select_dtypes("number").sum()
    walking = float(total["walk_cycles"])
    return {
        "cycles": float(total["total_cycles"] - total["pcpu_wait_cycles"] - total["io_wait_cycles"]),
        "accesses": float(total["accesses"]),
        "l1_misses": float(total["l1_tlb_misses"]),
        "stlb_misses": float(total["l2_tlb_misses"]),
        "walks": float(total["walks"]),
        "walk_cycles": walking,
        "walk_active": walking,
        "nested_cycles": float(total["walk_nested_cycles"]),
        "faults": float(total["guest_faults"]),
        "exits": float(total["exits"]),
    }


def side_by_side(
    found: Counted, summary: pd.DataFrame, exits: pd.DataFrame, frequency: int
) -> list[dict[str, float | str | None]]:
    """Return ratios of what was counted beside those of each mode, and exits by KVM's reasons.

    Parameters
    ----------
    found : Counted
    summary, exits : DataFrame
        Of a comparison: with a column ``mode``.
    frequency : int
        Hertz of the simulated TSC, for the ns of an exit.

    Returns
    -------
    list of dict
        quantity, measured, and a column for each mode; None where there is nothing.
    """
    modes = list(dict.fromkeys(summary["mode"]))
    counts = _complete(found.counts)
    simulated = {mode: _simulated(summary[summary["mode"] == mode]) for mode in modes}
    rows: list[dict[str, float | str | None]] = []
    for quantity, ratio in QUANTITIES.items():
        here = ratio(counts)
        if here is not None:
            rows.append({"quantity": quantity, "measured": here, **{mode: ratio(simulated[mode]) for mode in modes}})
    rows += _exits(found, exits, modes, frequency)
    return rows


def _exits(
    found: Counted, exits: pd.DataFrame, modes: list[str], frequency: int
) -> Iterator[dict[str, float | str | None]]:
    """Yield the share of each of KVM's reasons in all exits, and the ns of one."""
    whole = sum(count for count, _ in found.exits.values())
    for theirs, (count, nanoseconds) in found.exits.items():
        ours = [reason for reason, names in REASONS.items() if theirs in names]
        share: dict[str, float | None] = {}
        each: dict[str, float | None] = {}
        for mode in modes:
            all_ = exits[exits["mode"] == mode]
            mine = all_[all_["reason"].isin(ours)]
            total, many = float(all_["count"].sum()), float(mine["count"].sum())
            share[mode] = 100 * many / total if ours and total else None
            each[mode] = float(mine["cycles"].sum()) / many * 1e9 / frequency if many else None
        yield {"quantity": f"{theirs}, % of exits", "measured": 100 * count / whole if whole else None, **share}
        if nanoseconds:
            yield {"quantity": f"{theirs}, ns of one", "measured": nanoseconds, **each}
