"""Are pCPUs shared fairly, in time slices, and are vCPUs brought back to where they ran?"""

from __future__ import annotations

from collections import deque

import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.small import READ, Script, run, scenario, vm
from vmsim.base.clock import Clock
from vmsim.engine.simulation import Simulation
from vmsim.host.scheduler import Scheduler

SWITCH = 3000


def test_a_vcpu_goes_back_to_the_core_it_ran_on_if_that_is_idle() -> None:
    scheduler = Scheduler(Clock(), 3)
    assert [scheduler.request(vcpu) for vcpu in (7, 8, 9)] == [0, 1, 2]
    for core, vcpu in ((2, 9), (0, 7), (1, 8)):
        scheduler.release(core, vcpu)
    assert [scheduler.request(vcpu) for vcpu in (8, 9, 7)] == [1, 2, 0]
    scheduler.release(0, 7)
    assert scheduler.request(5) == 0


def test_the_longest_waiting_gets_the_core() -> None:
    scheduler = Scheduler(Clock(), 1)
    assert scheduler.request(0) == 0
    assert not scheduler.passes_on(0)
    waiting = [scheduler.request(vcpu) for vcpu in (1, 2)]
    assert all(isinstance(event, simpy.Event) and not event.triggered for event in waiting)
    assert scheduler.passes_on(0)
    scheduler.release(0, 0)
    assert [event.triggered for event in waiting if isinstance(event, simpy.Event)] == [True, False]
    assert scheduler.last == [0]


@given(st.integers(1, 3), st.lists(st.integers(0, 5), max_size=60))
def test_no_core_runs_two_and_none_idles_while_somebody_waits(cores: int, turns: list[int]) -> None:
    """Each turn, a vCPU that runs gives up its core, one that does neither asks for one; against two lists."""
    scheduler = Scheduler(Clock(), cores)
    running: dict[int, int] = {}
    waiting: deque[tuple[int, simpy.Event]] = deque()
    for vcpu in turns:
        if vcpu in running:
            core = running.pop(vcpu)
            scheduler.release(core, vcpu)
            if waiting:
                next_one, event = waiting.popleft()
                assert event.triggered
                assert event.value == core
                running[next_one] = core
        elif vcpu not in [each for each, _ in waiting]:
            got = scheduler.request(vcpu)
            if isinstance(got, simpy.Event):
                assert len(running) == cores
                waiting.append((vcpu, got))
            else:
                running[vcpu] = got
        assert len(set(running.values())) == len(running) <= cores
        assert not any(event.triggered for _, event in waiting)
        assert all(scheduler.passes_on(each) == bool(waiting) for each in running)


def round_robin(accesses: list[int], cost: int, first: int, quantum: int) -> list[int]:
    """Return when each of several vCPUs on one core is done: the scheduler again, as a loop over a queue.

    An access costs `cost` cycles and is never interrupted, a vCPU's first one `first` more; a slice begins after the
    switch to its vCPU.
    """
    queue, left, finish, clock, last = deque(range(len(accesses))), list(accesses), [0] * len(accesses), 0, -1
    while queue:
        vcpu = queue.popleft()
        clock += SWITCH if last not in (vcpu, -1) else 0
        last, used = vcpu, 0
        while left[vcpu] and (used < quantum or not queue):
            used += cost + (first if left[vcpu] == accesses[vcpu] else 0)
            left[vcpu] -= 1
        clock += used
        if left[vcpu]:
            queue.append(vcpu)
        finish[vcpu] = clock
    return finish


def compute_bound(accesses: list[int], cost: int, quantum: int) -> tuple[Simulation, list[int]]:
    """Run VMs that do nothing but compute; return when each was done."""
    keys = {"mode": "native", "populate": "eager", "workload": {"compute": cost}}
    vms = [vm(f"vm{number}", **keys) for number in range(len(accesses))]
    streams = [Script([("touch", 0, READ)] * count) for count in accesses]
    simulation, outcome = run(scenario(*vms, quantum=f"{quantum} cycles"), streams, events=5_000)
    return simulation, [each.finish for each in outcome.vms]


@settings(max_examples=25)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=4), st.integers(20, 200), st.integers(1_000, 20_000))
def test_slices_are_those_of_a_round_robin(accesses: list[int], cost: int, quantum: int) -> None:
    (alone,) = compute_bound([1], cost, quantum)[1]
    _, finish = compute_bound(accesses, cost, quantum)
    assert finish == round_robin(accesses, cost, alone - cost, quantum)


@pytest.mark.parametrize("vms", [2, 3, 4])
def test_equal_vcpus_have_equal_shares_at_any_time(vms: int) -> None:
    """Never more than a slice apart, whenever one looks."""
    quantum, cost, accesses = 10_000, 100, 2_000
    keys = {"mode": "native", "populate": "eager", "workload": {"compute": cost}}
    apart = []

    def look(simulation: Simulation) -> None:
        used = [int(each.registers[0].counters[0]) for each in simulation.vms]  # accesses, counted when a slice begins
        if all(0 < each < accesses for each in used):
            apart.append((max(used) - min(used)) * cost)

    what = scenario(*(vm(f"vm{n}", **keys) for n in range(vms)), quantum=f"{quantum} cycles")
    _, outcome = run(what, [Script([("touch", 0, READ)] * accesses)] * vms, every=7_919, look=look)
    assert len(apart) > 20
    assert max(apart) <= quantum + SWITCH
    finish = [each.finish for each in outcome.vms]
    assert max(finish) - min(finish) <= vms * quantum
    # The core never idles: the last is done after everybody's work and every switch.
    spent = sum(sum(n for cause, n in each.cycles.items() if cause != "pcpu_wait") for each in outcome.vms)
    assert max(finish) == spent


@pytest.mark.parametrize("quantum", [1, 100, SWITCH - 1, SWITCH])
def test_a_slice_shorter_than_a_switch_still_makes_an_access(quantum: int) -> None:
    _, finish = compute_bound([50, 50], 100, quantum)
    assert finish == round_robin([50, 50], 100, compute_bound([1], 100, quantum)[1][0] - 100, quantum)


def test_a_lone_vcpu_keeps_its_core_without_a_switch() -> None:
    simulation, _ = compute_bound([2_000], 100, 10_000)
    assert simulation.vms[0].vcpu.waits["pcpu_wait"] == 0
    assert simulation.vms[0].vcpu.cycles["switch"] == 0


def test_more_cores_than_vcpus_never_wait_or_switch() -> None:
    what = scenario(vm("a"), vm("b", mode="npt"), vm("c", mode="native"), cores=3, quantum="2us")
    _, outcome = run(what, every=5_000)
    for each in outcome.vms:
        assert each.waits["pcpu_wait"] == 0
        assert each.cycles["switch"] == 0
