"""Do VMs get the shares of pCPUs that their weights and caps say, and who wakes up soon runs?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.small import READ, Script, scenario, vm
from vmsim.engine.simulation import Simulation
from vmsim.host.run_queues.credit import Credit
from vmsim.host.run_queues.fair import Fair

COST = 200_000  # cycles of an access
MS = 2_000_000  # cycles of a millisecond on the yardstick


def finish(
    policy: str, accesses: Sequence[int], keys: Sequence[dict[str, Any]], *, cores: int = 1, threads: int = 1
) -> list[float]:
    """Return when each of several VMs that only compute was done, in units of an access."""
    vms = [
        vm(f"vm{n}", mode="ept", populate="eager", vcpus=threads, workload={"compute": COST}, **own)
        for n, own in enumerate(keys)
    ]
    what = scenario(*vms, quantum="1ms", scheduler=policy, cores=cores)
    streams = [Script([("touch", 0, READ)] * count, threads=threads) for count in accesses]
    outcome = Simulation(what, streams=streams).run()
    return [each.finish / COST for each in outcome.vms]


def shared(work: Sequence[int], weights: Sequence[int]) -> list[float]:
    """Return when each is done if all are served at once by weight: generalized processor sharing."""
    left, now, done = dict(enumerate(map(float, work))), 0.0, [0.0] * len(work)
    while left:
        total = sum(weights[each] for each in left)
        first = min(left, key=lambda each: left[each] / weights[each])
        step = left[first] * total / weights[first]
        now += step
        left = {each: much - step * weights[each] / total for each, much in left.items() if each != first}
        done[first] = now
    return done


@pytest.mark.parametrize("policy", ["fair", "credit"])
@pytest.mark.parametrize("weights", [(256, 256), (100, 300), (512, 256, 256)])
def test_contended_time_is_shared_by_weight(policy: str, weights: tuple[int, ...]) -> None:
    work = [6_000] * len(weights)  # 600 ms each
    found = finish(policy, work, [{"cpu_weight": weight} for weight in weights])
    expected = shared(work, weights)
    # Credit is given out every 30 ms, or 300 accesses; fair shares are exact to a slice of 10 for each VM.
    within = 300 if policy == "credit" else 10 * len(weights)
    assert found == pytest.approx(expected, abs=within)


def test_a_vm_of_more_vcpus_gets_no_more_under_fair_and_more_under_credit() -> None:
    """CFS weighs a VM's group; Xen's weight counts for each active vCPU (csched_vcpu_acct_start)."""
    for policy, share in (("fair", 1 / 2), ("credit", 2 / 3)):
        vms = [("one", 1), ("two", 2)]
        what = scenario(
            *(
                vm(name, mode="ept", populate="eager", vcpus=threads, workload={"compute": COST})
                for name, threads in vms
            ),
            quantum="1ms",
            scheduler=policy,
        )
        streams = [Script([("touch", 0, READ)] * 3_000, threads=threads) for _, threads in vms]
        one = Simulation(what, streams=streams).run().vms[0].finish / COST
        assert one == pytest.approx(3_000 / (1 - share), rel=0.06)


def test_a_cap_holds_on_an_idle_host() -> None:
    (capped,) = finish("credit", [4_500], [{"cpu_cap": 25}])
    assert capped == pytest.approx(4 * 4_500, rel=0.1)
    (whole,) = finish("credit", [4_500], [{}])
    assert whole == pytest.approx(4_500, rel=0.01)


@pytest.mark.parametrize(("policy", "slices"), [("round-robin", 2.0), ("fair", 0.2), ("credit", 0.2)])
def test_who_wakes_up_interrupts_those_who_compute(policy: str, slices: float) -> None:
    """Round robin has it wait for the slices of both others; the horizon is a tenth of a slice."""
    vms = [
        vm(f"vm{n}", mode="ept", populate="eager", workload={"compute": compute})
        for n, compute in enumerate((COST // 10, COST // 10, 100))
    ]
    what = scenario(*vms, quantum="1ms", horizon="20us", scheduler=policy)
    busy = [("touch", 0, READ)] * 20_000
    waits = [step for _ in range(20) for step in (("io", 0, 1, 5_000_000), ("touch", 0, READ))]
    outcome = Simulation(what, streams=[Script(busy), Script(busy), Script(waits)]).run()
    waited = outcome.vms[2].cycles["pcpu_wait"] / 20 / MS
    assert waited < slices
    if policy == "round-robin":
        assert waited > 1


@settings(max_examples=60)
@given(
    st.sampled_from([Fair, Credit]),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3 * MS)), max_size=80),
    st.integers(1, 3),
)
def test_each_vcpu_that_waits_is_taken_once(kind: Any, turns: list[tuple[int, int]], cores: int) -> None:
    vms, weights = [0, 0, 1, 2, 2], [1, 256, 10_000]
    queue = Fair(vms, weights, MS) if kind is Fair else Credit(vms, weights, [0] * 3, cores=cores, millisecond=MS)
    waiting: set[int] = set()
    running: dict[int, int] = {}
    now = 0
    for vcpu, passed in turns:
        now += passed
        running = {each: ran + passed for each, ran in running.items()}
        if vcpu in running:
            queue.charge(vcpu, running.pop(vcpu), now)
            queue.stop(vcpu)
        elif vcpu not in waiting:
            queue.add(vcpu, now, woken=True)
            waiting.add(vcpu)
        victim = queue.victim(running, now)
        assert victim is None or (victim in running and waiting)
        while len(running) < cores:
            taken = queue.take(now)
            assert (taken is None) == (not waiting)
            if taken is None:
                break
            waiting.remove(taken)
            running[taken] = 0
