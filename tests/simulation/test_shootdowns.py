"""Do vCPUs that forget for one another pay for it, stall for those that do not run, and do hosts kick?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import PAGE, READ, WRITE, Script, Threads, run, scenario, vm
from vmsim.scenario import Scenario

ROUNDS = 10
COSTS = {"ipi_send": 70, "ipi_latency": 500, "ipi_handle": 1000, "invlpg": 30, "invlpgb": 4000}
ANSWER = COSTS["ipi_handle"] + COSTS["invlpg"]


def host(*vms: dict[str, Any], cores: int, **keys: Any) -> Scenario:
    override = {"cost": COSTS, **keys.pop("cpu_override", {})}
    return scenario(*vms, cores=cores, memory="64MiB", cpu_override=override, **keys)


def discards(others: int, rounds: int = ROUNDS) -> Threads:
    """Thread 0 writes and discards a page again and again; the others work on pages of their own, longer than it."""
    first = Script([step for _ in range(rounds) for step in (("touch", 0, WRITE), ("discard", 0, 1))])
    rest = [Script([("touch", 1 + each, READ, 100_000)] * rounds) for each in range(others)]
    return Threads([first, *rest])


def figures(outcome: Any) -> dict[str, int]:
    return outcome.vms[0].figures.named("shootdowns")


@pytest.mark.parametrize("others", [1, 3])
def test_each_shootdown_costs_what_its_steps_sum_to(others: int) -> None:
    what = host(vm(mode="native", vcpus=others + 1), cores=others + 1)
    _, outcome = run(what, [discards(others)])
    sent = ROUNDS * others
    assert figures(outcome)["interrupts"] == sent
    sender = sent * COSTS["ipi_send"] + ROUNDS * (COSTS["ipi_latency"] + ANSWER)
    assert outcome.vms[0].cycles["shootdown"] == sender + sent * ANSWER


def test_a_space_that_nobody_else_runs_needs_no_interrupt() -> None:
    _, outcome = run(host(vm(mode="native", vcpus=2), cores=2), [discards(0)])
    assert outcome.vms[0].cycles["shootdown"] == 0
    assert not any(figures(outcome).values())


@pytest.mark.parametrize(("interrupts", "exits"), [("exit", 3), ("posted", 1), ("virtual", 0)])
def test_in_a_guest_each_interrupt_has_its_exits(interrupts: str, exits: int) -> None:
    """Against a CPU that needs none: one exit to send, two to take and to end."""
    took = {}
    for kind in (interrupts, "virtual"):
        what = host(vm(mode="ept", vcpus=2), cores=2, cpu_override={"interrupts": kind})
        took[kind] = run(what, [discards(1)])[1].vms[0].cycles["exit"]
    cost = what.cpu.cost
    assert took[interrupts] - took["virtual"] == ROUNDS * exits * (cost.vm_exit + cost.violation_resume)


def test_who_does_not_run_stalls_the_sender_unless_it_is_told_otherwise() -> None:
    """Two vCPUs share a core in slices of 1 ms: whenever the first asks, the second waits for the core."""
    first = Script([("compute", 2_500_000), ("touch", 0, WRITE), *discards(0).scripts[0].steps])
    second = Script([("touch", 1, READ, 100_000)] * 400)

    def made(**keys: Any) -> Any:
        what = host(vm(mode="ept", vcpus=2, **keys), cores=1, quantum="1ms")
        return run(what, [Threads([first, second])])[1]

    waits, told = made(), made(pv_flush=True)
    assert figures(waits)["stalled"] == ROUNDS
    assert figures(told)["deferred"] == ROUNDS
    assert figures(told)["stalled"] == 0
    slice = 2_000_000
    # it asks when its slice begins, and the other answers when that slice has ended: so long it stalls, each time
    assert waits.vms[0].cycles["shootdown"] == pytest.approx(ROUNDS * slice, rel=0.02)
    assert told.vms[0].cycles["shootdown"] == 0
    assert told.end < waits.end


def test_an_idle_cpu_gets_no_interrupt() -> None:
    """The second waits for a device for longer than the first takes."""
    first = Script([("compute", 9_000), *discards(0).scripts[0].steps])
    second = Script([("touch", 1, READ), ("io", 1, 1, 10_000_000), ("touch", 1, READ)])
    _, outcome = run(host(vm(mode="native", vcpus=2), cores=2), [Threads([first, second])])
    assert figures(outcome)["interrupts"] == 0
    assert figures(outcome)["idle"] == ROUNDS


def test_a_broadcast_costs_the_sender_alone() -> None:
    what = host(vm(mode="native", vcpus=4), cores=4, cpu_override={"invlpgb": True})
    _, outcome = run(what, [discards(3)])
    assert figures(outcome)["broadcasts"] == ROUNDS
    assert outcome.vms[0].cycles["shootdown"] == ROUNDS * COSTS["invlpgb"]


def test_a_host_that_takes_pages_has_running_vcpus_leave_the_guest() -> None:
    workload = {"kind": "sequential", "footprint": 64 * PAGE, "accesses": 20_000, "compute": 100}
    what = host(vm(mode="ept", workload=workload), cores=1, reclaim={"rate": 50_000, "batch": 4})
    _, outcome = run(what)
    counts = figures(outcome)
    assert counts["kicks"] > 5
    assert counts["requests"] == 0
    slower = host(
        vm(mode="ept", workload=workload),
        cores=1,
        reclaim={"rate": 50_000, "batch": 4},
        cpu_override={"cost": {**COSTS, "ipi_handle": 51_000}},
    )
    _, late = run(slower)
    assert late.vms[0].cycles["exit"] > outcome.vms[0].cycles["exit"] + 5 * 40_000
