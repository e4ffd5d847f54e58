"""Is each fault of one kind, by what it had to wait for, and do the kinds add up to all faults, in every mode?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import PAGE, READ, WRITE, Script, run, scenario, touches, vm
from vmsim.contracts.faults import FaultKind, FaultTimes
from vmsim.engine.simulation import Simulation
from vmsim.record.outcome import Outcome, VmOutcome
from vmsim.record.tables import rows

MODES = ("native", "ept", "npt", "shadow", "agile", "paired", "vkernel")
MARKS = {"min": 16 * PAGE, "low": 24 * PAGE, "high": 32 * PAGE}
PAGES = 120


def kinds(outcome: Outcome, number: int = 0) -> dict[str, dict[str, int]]:
    name = outcome.vms[number].name
    return {row["kind"]: row for row in rows("fault_kinds", outcome) if row["vm"] == name}


def adds_up(vm: VmOutcome) -> bool:
    """Whether the kinds of faults that leave the guest are all of these, and the kernel's its page faults."""
    each = vm.figures.kinds
    outer = [histogram for kind, histogram in each.items() if not kind.startswith("guest")]
    own = sum(histogram.count for kind, histogram in each.items() if kind.startswith("guest"))
    every = vm.figures.histogram("fault_latency")
    same = (sum(h.count for h in outer), sum(h.total for h in outer)) == (every.count, every.total)
    return same and own == vm.guest_faults


def crowd(mode: str, **host: Any) -> tuple[Any, list[Script]]:
    """Return two VMs that have room for two thirds of what they use, on a host with a swap device."""
    tables = [vm(name, mode=mode, memory="4MiB") for name in "ab"]
    pool = {"min": 2, "max": 8, "batch": 4}
    given = {"memory": 230 * PAGE, "cores": 2, "pool": pool, "watermarks": MARKS, "swap": {"device": "nvme"}}
    script = Script([*touches(range(PAGES), WRITE), *touches(range(PAGES), READ), *touches(range(PAGES), WRITE)])
    return scenario(*tables, **given, what_if=True, **host), [script, script]


@pytest.mark.parametrize("mode", MODES)
def test_kinds_add_up_to_all_faults(mode: str) -> None:
    what, streams = crowd(mode)
    _, outcome = run(what, streams)
    assert outcome.ending is None
    assert all(adds_up(each) for each in outcome.vms)
    told = kinds(outcome)
    wanted = {"native": {"guest", "guest-major"}, "paired": {"guest", "zero-fill"}}
    assert told.keys() >= wanted.get(mode, {"guest", "zero-fill", "swap-in-major", "pool-wait"})
    for row in told.values():
        assert row["p50_cycles"] <= row["p99_cycles"] <= row["p99_9_cycles"]
        assert row["count"] * row["p50_cycles"] <= 2.01 * row["cycles"]  # half of all are at least the median
    if mode not in ("native", "paired"):
        swap = outcome.vms[0].figures.named("swap")
        pages = 1.1 if mode in ("ept", "npt") else 5  # of one fault: other modes walk the guest's tables in it
        assert swap["major"] / pages <= told["swap-in-major"]["count"] <= swap["major"]
        assert told["swap-in-major"]["p50_cycles"] > 100_000  # 52.6 us of the device's


@pytest.mark.parametrize("mode", MODES)
def test_compiled_code_and_the_process_say_the_same_kinds(mode: str) -> None:
    what, streams = crowd(mode)
    one, other = (Simulation(what, streams=streams, serve=serve).run() for serve in (True, False))
    assert rows("fault_kinds", one) == rows("fault_kinds", other)


@pytest.mark.parametrize("mode", ["ept", "npt"])
def test_a_violation_that_finds_a_page_at_hand_takes_what_its_parts_do(mode: str) -> None:
    """The yardstick's costs of a violation that makes no table, and that makes one, two, three: 512 pages apart."""
    what = scenario(vm(mode=mode), pool={"min": 1, "max": 600, "batch": 500})
    _, outcome = run(what, [Script(touches(range(40), WRITE))])
    cost = what.cpu.cost
    parts = cost.violation_walk + cost.violation_pool + cost.violation_entry + cost.violation_rmap
    plain = cost.vm_exit + parts + cost.violation_resume
    assert kinds(outcome)["zero-fill"]["p50_cycles"] == plain
    assert kinds(outcome)["guest"]["p50_cycles"] == cost.fault_delivery + cost.guest_fault + cost.zero_page + plain


def test_a_break_of_a_shared_page_is_a_kind() -> None:
    ksm = {"run": 1, "sleep_millisecs": 1, "pages_to_scan": 1000, "smart_scan": False}
    script = Script([*touches(range(20), READ), *[("touch", 30, READ, 700)] * 30_000, *touches(range(20), WRITE)])
    tables = [vm(name, content={"image": "x", "image_share": 1.0}) for name in "ab"]
    pool = {"min": 40, "max": 200, "batch": 100}
    _, outcome = run(scenario(*tables, cores=2, ksm=ksm, pool=pool), [script, script], events=10**6)
    assert kinds(outcome)["share-break"]["count"] == outcome.vms[0].figures.named("ksm")["broken"] > 0
    assert all(adds_up(each) for each in outcome.vms)


def test_kinds_are_off_by_less_than_a_fifth_of_a_percent_and_the_sums_exact() -> None:
    times = FaultTimes()
    for cycles in range(10_000, 20_000, 7):
        times.add(cycles, kind=FaultKind.POOL_WAIT)
    (told,) = [each for kind, each in times.kinds() if kind == "pool-wait"]
    assert told.total == sum(range(10_000, 20_000, 7))
    assert len(told) <= 513
    assert times.copy().means() == told.means()
