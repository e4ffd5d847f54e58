"""Does every cycle have a cause, and is every cost the sum of the figures that it is documented to be?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.small import PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from tests.simulation.test_contract import ALL
from vmsim.base.errors import InputError
from vmsim.record.outcome import VmOutcome

# Costs of the yardstick preset, written out: cycles.
EXIT, VIOLATION, VIOLATION_POOL, TABLE_PAGE, ZERO = 1000, 3027, 295, 295, 340
FAULT = 1050 + 1000
MESSAGE, GRANT_FIXED, GRANT_PAGE, HOST_ZERO = 2435, 1650, 295, 1438
RECLAIM_FIXED, RECLAIM_PAGE = 1650, 295
SWITCH = 3000
REFILL = (
    MESSAGE + GRANT_FIXED + 16 * (GRANT_PAGE + HOST_ZERO)
)  # the first refill of 16 pages, from the call to the pages
WAITS = ("pool_wait", "host_wait", "pcpu_wait", "io_wait")


def busy(figures: VmOutcome) -> int:
    """Return the cycles that are no waiting."""
    return sum(cycles for cause, cycles in figures.cycles.items() if cause not in WAITS)


@pytest.mark.parametrize("mode", ["native", "ept", "npt"])
@pytest.mark.parametrize("levels", [4, 5])
def test_faults_and_exits_cost_the_sum_of_their_steps(mode: str, levels: int) -> None:
    pages = 20
    keys: Any = {} if mode == "native" else {"host_levels": levels}
    _, outcome = run(scenario(vm(mode=mode, guest_levels=levels, **keys)), [Script(touches(range(pages)))])
    (figures,) = outcome.vms
    # The root is made at boot, which costs nothing but its backing; the tables below it come with the first fault.
    assert figures.cycles["guest_fault"] == pages * (FAULT + ZERO) + (levels - 1) * (TABLE_PAGE + ZERO)
    if mode == "native":
        assert figures.exits == {}
        assert figures.cycles["exit"] == 0
        assert figures.cycles["pool_wait"] == 0
        return
    violations = pages + levels
    tables = (
        levels - 2 + 2
    )  # below the nested root: one of each level, but two PTs, for tables and data lie in two pageblocks
    cost = violations * (EXIT + VIOLATION) + tables * (VIOLATION_POOL + TABLE_PAGE)
    assert list(figures.exits.values()) == [(violations, cost)]
    assert figures.cycles["exit"] == cost
    assert figures.memory["table"] == tables + 1
    assert figures.memory["guest"] == violations


def test_a_large_host_page_costs_its_clearing_and_a_message_to_the_host() -> None:
    _, outcome = run(scenario(vm(host_page="2M"), memory="32MiB"), [Script(touches(range(20)))])
    (figures,) = outcome.vms
    large = EXIT + VIOLATION - VIOLATION_POOL + MESSAGE + GRANT_FIXED + 512 * HOST_ZERO
    tables = 2  # PDPT and PD
    assert list(figures.exits.values()) == [(2, 2 * large + tables * (VIOLATION_POOL + TABLE_PAGE))]


def test_a_large_guest_page_costs_its_clearing_once() -> None:
    _, outcome = run(
        scenario(vm(mode="native", guest_page="2M", memory="8MiB"), memory="32MiB"), [Script(touches([0, 5, 512, 700]))]
    )
    assert outcome.vms[0].cycles["guest_fault"] == 2 * (FAULT + 512 * ZERO) + 2 * (TABLE_PAGE + ZERO)


def test_fault_latency_is_the_cost_and_the_wait_of_each_exit() -> None:
    _, outcome = run(scenario(vm(pool={"min": 4, "max": 64, "batch": 64})), [Script(touches(range(20)))])
    latency = outcome.vms[0].fault_latency
    plain = EXIT + VIOLATION
    assert sum(latency.values()) == 24
    # The first exit makes PDPT, PD and PT, another the PT of the data; no other waits, for the pool has 64 pages.
    assert latency == {
        plain: 22,
        plain + VIOLATION_POOL + TABLE_PAGE: 1,
        plain + 3 * (VIOLATION_POOL + TABLE_PAGE): 1,
    }


def test_waiting_for_the_first_refill_takes_what_a_refill_takes() -> None:
    _, outcome = run(scenario(vm(pool={"min": 0, "max": 64, "batch": 16})), [Script(touches([0]))])
    # Root, then four guest tables and the page with four nested tables: ten pages, of the first sixteen.
    assert outcome.vms[0].cycles["pool_wait"] == REFILL
    assert outcome.vms[0].waits == {"pool_wait": 1, "host_wait": 0, "pcpu_wait": 0, "io_wait": 0}


def test_compute_is_the_accesses_times_their_cost_and_what_events_say() -> None:
    workload = {"compute": 7}
    steps = [("touch", 0, READ, 1000), ("compute", 12_345), ("touch", 1, WRITE, 10), ("compute", 55)]
    _, outcome = run(scenario(vm(workload=workload)), [Script(steps)])
    (figures,) = outcome.vms
    assert figures.cycles["compute"] == 1010 * 7 + 12_345 + 55
    assert (figures.counters["accesses"], figures.counters["writes"]) == (1010, 10)


def test_a_vm_that_waits_for_its_first_core_started_before_it_waited() -> None:
    """The time from its start to its end holds every wait that is counted."""
    hosts = {"populate": "eager", "workload": {"accesses": 20_000}}
    _, outcome = run(scenario(vm("a", **hosts), vm("b", **hosts), vm("c", start="1us", **hosts), quantum="5us"))
    assert [each.start for each in outcome.vms] == [0, 0, 2_000]
    assert all(each.cycles["pcpu_wait"] > 0 for each in outcome.vms)
    assert time_adds_up(outcome)


def test_a_switch_is_paid_when_another_vcpu_ran_on_the_core_in_between() -> None:
    keys = {"populate": "eager", "workload": {"accesses": 20_000}}
    _, outcome = run(scenario(vm("a", **keys), vm("b", **keys), quantum="5us"))
    waits = sum(each.waits["pcpu_wait"] for each in outcome.vms)
    # b waits for its first core and each goes back in the queue: every core got after a wait is another's.
    assert sum(each.cycles["switch"] for each in outcome.vms) == waits * SWITCH
    assert waits > 4
    _, apart = run(scenario(vm("a", **keys), vm("b", **keys), quantum="5us", cores=2))
    assert [each.cycles["switch"] for each in apart.vms] == [0, 0]
    assert [each.waits["pcpu_wait"] for each in apart.vms] == [0, 0]


@pytest.mark.parametrize(
    ("mode", "populate"),
    [(name, how) for name in ALL for how in ("eager", "lazy") if not (name.endswith("process") and how == "eager")],
)
def test_a_warm_up_is_exactly_the_run_of_the_prefix(mode: str, populate: str) -> None:
    rng = np.random.default_rng(7)
    steps = [("touch", int(page), int(kind)) for page, kind in rng.integers((0, 0), (300, 2), (4000, 2))]
    keys: Any = {**ALL[mode], "populate": populate, "workload": {"footprint": 300 * PAGE}}
    whole, prefix = Script(steps), Script(steps[:1500])
    prefix.footprint = whole.footprint  # type: ignore[method-assign]  # what an eager VM maps beforehand
    full, first = (run(scenario(vm(**keys)), [stream])[1].vms[0] for stream in (whole, prefix))
    _, outcome = run(scenario(vm(**keys), warmup=1500), [whole])
    (rest,) = outcome.vms
    assert rest.counters == {name: full.counters[name] - first.counters[name] for name in full.counters}
    assert rest.cycles == {cause: full.cycles[cause] - first.cycles[cause] for cause in full.cycles}
    assert (rest.refs == full.refs - first.refs).all()
    assert (rest.pwc == full.pwc - first.pwc).all()
    assert rest.exits == {
        reason: tuple(a - b for a, b in zip(full.exits[reason], first.exits[reason], strict=True))
        for reason in full.exits
    }
    assert rest.guest_faults == full.guest_faults - first.guest_faults
    assert (rest.start, rest.finish) == (first.finish, full.finish)
    assert rest.counters["accesses"] == 2500
    assert time_adds_up(outcome)


@pytest.mark.parametrize("warmup", ["0%", "10%", "99.99%", 1, 3999])
def test_a_warm_up_of_any_length_leaves_the_rest(warmup: str | int) -> None:
    steps = touches(list(range(50)) * 80)
    _, outcome = run(scenario(vm(), warmup=warmup), [Script(steps)])
    left = {"0%": 4000, "10%": 3600, "99.99%": 1}.get(str(warmup)) or 4000 - int(str(warmup))
    assert outcome.vms[0].counters["accesses"] == left
    assert time_adds_up(outcome)


@pytest.mark.parametrize("warmup", [4000, 10**9])
@pytest.mark.parametrize("mode", ["native", "ept", "shadow"])
def test_a_warm_up_that_leaves_nothing_is_refused_before_anything_runs(mode: str, warmup: int) -> None:
    steps = [[("touch", 0, READ)] * 9000, touches(list(range(50)) * 80)]
    what = scenario(vm("long", mode=mode), vm("short", mode=mode), warmup=warmup)
    with pytest.raises(InputError, match=f"warmup: found {warmup}, .*VM (short makes 4000|long makes 9000) accesses"):
        run(what, [Script(each) for each in steps])


streams = st.lists(
    st.one_of(
        st.tuples(st.just("touch"), st.integers(0, 80), st.sampled_from([READ, WRITE]), st.integers(1, 3)),
        st.tuples(st.sampled_from(["unmap", "map"]), st.integers(0, 80), st.integers(1, 50)),
        st.tuples(st.just("compute"), st.integers(0, 30_000)),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=60)
@given(streams, st.sampled_from([*ALL]), st.sampled_from(["eager", "lazy"]), st.integers(1, 2))
def test_counters_agree_with_each_other(steps: list[Any], mode: str, populate: str, vms: int) -> None:
    steps.append(("touch", 0, READ))
    keys: Any = {**ALL[mode], "memory": "1MiB"} | ({} if mode.endswith("process") else {"populate": populate})
    what = scenario(*(vm(f"vm{number}", **keys) for number in range(vms)), quantum="10us")
    _, outcome = run(what, [Script(steps)] * vms)
    assert outcome.ending is None
    assert time_adds_up(outcome)
    for figures in outcome.vms:
        check_identities(mode, figures, outcome.latency)
        assert figures.counters["accesses"] == Script(steps).accesses
        assert figures.counters["writes"] == sum(step[3] for step in steps if step[0] == "touch" and step[2] == WRITE)


def check_identities(mode: str, figures: VmOutcome, latency: tuple[int, ...]) -> None:
    counters, refs, pwc = figures.counters, figures.refs, figures.pwc
    assert counters["walks"] == counters["l2_tlb_misses"] + counters["dirty_walks"]
    assert counters["l2_tlb_misses"] <= counters["l1_tlb_misses"] <= counters["accesses"] + counters["walks"]
    assert counters["nested_walks"] == counters["ntlb_misses"]
    assert refs[0, 0].sum() == 0
    cycles = refs * np.array(latency)  # the yardstick starts walks, asks its nested TLB and sets flags for nothing
    assert figures.cycles["walk_guest"] == cycles[:, 0].sum()
    assert figures.cycles["walk_nested"] == cycles[:, 1:].sum()
    # Each walk asks for the lowest prefix, and for the next where that missed; it reads one entry a level from there.
    guest, nested = pwc
    assert guest[2].sum() == counters["walks"]
    assert nested[2].sum() == counters["nested_walks"]
    for dimension in (guest, nested):
        for level in (3, 4):
            assert dimension[level].sum() == dimension[level - 1, 0]  # column 0: misses
    assert refs[4, 0].sum() <= guest[4, 0]  # a root that is not backed yet is not read
    assert refs[:, 4].sum() == nested[4, 0]
    assert sum(cost for _, cost in figures.exits.values()) == figures.cycles["exit"]
    if not mode.startswith(("ept", "npt", "agile")) and not mode.endswith("-vm"):  # one dimension is walked
        assert refs[:, 1:].sum() == 0
        assert counters["ntlb_hits"] == counters["ntlb_misses"] == 0
        assert refs[4, 0].sum() == guest[4, 0]
    if mode in ("ept", "npt") or mode.endswith("-vm"):
        # Every exit of the walk's (not of the guest kernel's own writes) repeats its access.
        ((exits, _),) = (each for reason, each in figures.exits.items() if reason in ("EPT_VIOLATION", "NPF"))
        assert exits == sum(figures.fault_latency.values())
        assert exits in (0, figures.memory["guest"])  # each backed one page, of 4 KiB; none of an eager VM's
