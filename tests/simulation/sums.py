"""Every sum that two tables of one run give: does it have one value?"""

from __future__ import annotations

from collections import Counter
from typing import Any

from vmsim.record.causes import CAUSES, MANAGEMENT, TRANSLATION
from vmsim.record.outcome import Outcome
from vmsim.record.tables import TABLES, rows
from vmsim.scenario import Scenario

__all__ = ["check"]

WAITS = ("pool_wait", "host_wait", "pcpu_wait", "io_wait")
MORE = ("swap_wait", "limit_wait", "lock_wait", "barrier_wait", "shootdown", "balloon")  # of VMs that may have them
WORK = ("shootdown", "balloon")  # of these, what takes time without a wait too
# Exits that a fault of the hardware or a store of the guest's kernel makes: each is in the table of latencies once.
FAULTS = ("EPT_VIOLATION", "NPF", "WRITE_PROTECT", "NX_SPLIT", "HOST_FAULT", "SHADOW_FILL", "VPAGE_FILL")
BATCH = 300  # pages: a grant that comes when the VM has ended goes back to the host, and is in the messages alone

Table = dict[str, Any]


def check(what: Scenario, outcome: Outcome) -> None:
    """Compare every figure that more than one table gives, or that another table says how often it was paid."""
    tables = {name: rows(name, outcome) for name in TABLES}
    assert len(tables["summary"]) == len(what.vms)
    for spec, each, summary in zip(what.vms, outcome.vms, tables["summary"], strict=True):
        of = {name: [row for row in table if row.get("vm") == spec.name] for name, table in tables.items()}
        cycles = {row["cause"]: row["cycles"] for row in of["cycles"]}
        assert sum(cycles.values()) == summary["total_cycles"], "causes"
        lasted = summary["finish_cycle"] - summary["start_cycle"]
        assert lasted == each.finish - each.start
        assert lasted <= summary["total_cycles"] <= spec.vcpus * lasted, "each vCPU ends at the last moment, or before"
        assert {*cycles} <= {*CAUSES}, "a cause that no screen or figure knows"
        assert sum(cycles[cause] for cause in TRANSLATION) == summary["translation_cycles"]
        assert sum(cycles.get(cause, 0) for cause in MANAGEMENT) == summary["management_cycles"]
        assert all(value <= 0 if cause == "overlap" else value >= 0 for cause, value in cycles.items())
        assert summary["compactions"] <= summary["order_1_failures"], "a block was made where one was to be had"
        assert summary["compactions"] <= summary["pages_moved"] <= 2 * summary["compactions"]
        exits(of, cycles, summary)
        waits(of, cycles, done=each.finished)
        walks(what, of, cycles, summary)
        faults(
            spec.mode,
            of,
            each.figures.named("dirty_log"),
            summary,
            vcpus=spec.vcpus,
            done=each.finished,
            brought=spec.workload.kind == "disk",
        )
        touches = [row for row in of["cycles"] if row["cause"] != "overlap"]  # which is no part of first touches
        assert all(0 <= row["first_touch_cycles"] <= row["cycles"] for row in touches)
    messages(tables, whole=all(each.finished for each in outcome.vms))


def exits(of: dict[str, list[Table]], cycles: dict[str, int], summary: Table) -> None:
    assert sum(row["cycles"] for row in of["exits"]) == cycles.get("exit", 0) == summary["exit_cycles"], "exits"
    assert sum(row["count"] for row in of["exits"]) == summary["exits"]
    for row in of["exits"]:
        assert row["count"] >= 0
        assert row["cycles"] >= 0


def waits(of: dict[str, list[Table]], cycles: dict[str, int], *, done: bool) -> None:
    assert {*WAITS} <= {row["cause"] for row in of["waits"]} <= {*WAITS, *MORE}
    for row in of["waits"]:
        assert row["cycles"] == cycles[row["cause"]], row["cause"]
        if done and row["cause"] not in WORK:  # else one may be under way, which is counted when it is over
            assert row["count"] > 0 or row["cycles"] == 0, row["cause"]


def walks(what: Scenario, of: dict[str, list[Table]], cycles: dict[str, int], summary: Table) -> None:
    cpu = what.cpu
    assert sum(row["count"] for row in of["walk_references"] if row["served"] != "PWC") == summary["walk_refs"]
    started = summary["walks"] * cpu.walk_start + summary["ad_updates"] * cpu.cost.ad_assist
    asked = (summary["ntlb_hits"] + summary["ntlb_misses"]) * cpu.ntlb.cycles
    read = dict.fromkeys((False, True), 0)
    for row in of["walk_references"]:
        read[row["nested_level"] > 0] += row["cycles"]
    assert cycles["walk_guest"] == read[False] + started, "guest dimension"
    assert cycles["walk_nested"] == read[True] + asked, "nested dimension"
    assert summary["walks"] == summary["l2_tlb_misses"] + summary["dirty_walks"]
    assert summary["l2_tlb_misses"] <= summary["l1_tlb_misses"]
    assert cycles["l2_tlb"] == summary["l1_tlb_misses"] * cpu.tlb.l2_cycles
    assert sum(row["count"] for row in of["data"]) == (summary["accesses"] if what.host.data_caches else 0)


def faults(
    mode: str, of: dict[str, list[Table]], log: dict[str, int], summary: Table, *, vcpus: int, done: bool, brought: bool
) -> None:
    counts = {row["reason"]: row["count"] for row in of["exits"]}
    timed = sum(row["count"] for row in of["fault_latency"])
    last = sum(counts.get(reason, 0) for reason in FAULTS) - timed  # the one that has ended the VM is never over
    assert last == 0 if done else last in (0, 1)
    given = {"shadow": "TRUE_FAULT", "vkernel": "REFLECT"}.get(mode)
    if given and not brought:  # by the guest's kernel for a device, without a fault
        refused = 0 if done else 1  # a fault that ends the guest's kernel is not counted as handled
        assert 0 <= counts.get(given, 0) - summary["guest_faults"] <= refused
    if log:
        assert len(of["dirty"]) == log["readings"]
        kicks = counts.get("DIRTY_LOG", 0)  # one of each vCPU that runs then
        assert kicks <= vcpus * log["readings"]
        if vcpus == 1 and not any(row["cycles"] for row in of["waits"]):  # it always runs
            assert kicks == log["readings"]
        assert sum(row["pages"] for row in of["dirty"]) == log["pages"]
        assert sum(row["host_cycles"] for row in of["dirty"]) == log["host_cycles"]
    done = {row["event"]: row["count"] for row in of["shadow"]}
    if mode == "vkernel":
        assert done["filled"] == counts.get("VPAGE_FILL", 0)


def messages(tables: dict[str, list[Table]], *, whole: bool) -> None:
    """Every transfer that has a message moved as many pages as the message says."""
    sent, moved = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in tables["messages"]:
        sent[row["vm"], row["kind"]] += row["pages"]
    for row in tables["pool"]:
        moved[row["vm"], row["event"]] += row["pages"]
    for name, what in moved:
        if what in ("grant", "spare") and whole:
            back = sent[name, what] - moved[name, what]
            assert 0 <= back <= BATCH, (name, what)
