"""Does whoever changes what a VM's processors may have cached interrupt those that run, at what its steps sum to?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import READ, WRITE, Script, Threads, run, scenario, vm

COSTS = {"ipi_send": 70, "ipi_latency": 500, "ipi_handle": 1000, "invlpg": 30}
LOG = {"method": "write-protect", "every": "20us", "stop": "110us"}


@pytest.mark.parametrize("mode", ["ept", "npt", "shadow"])
@pytest.mark.parametrize("vcpus", [1, 3])
def test_each_reading_of_a_dirty_log_makes_each_vcpu_that_runs_exit_once(mode: str, vcpus: int) -> None:
    """Five readings before logging ends, and its end (merged with the sixth, which ends it)."""
    busy: list[Any] = [("touch", 0, WRITE), *[("touch", 0, READ, 2000)] * 400]
    streams = [Threads([Script(busy) for _ in range(vcpus)])]
    table = vm(mode=mode, vcpus=vcpus, dirty_log=LOG, populate="eager")
    what = scenario(table, cores=vcpus, cpu_override={"cost": COSTS})
    _, outcome = run(what, streams)
    (figures,) = outcome.vms
    count, cycles = figures.exits["DIRTY_LOG"]
    readings = figures.figures.named("dirty_log")["readings"]
    assert readings == 6  # at 20, 40 ... 120 us: the first at or after 110 us is the last
    assert count == readings * vcpus
    cost = what.cpu.cost
    assert cycles == count * (cost.vm_exit + cost.violation_resume + COSTS["ipi_handle"] + COSTS["invlpg"])
    assert sum(each for _, each in figures.exits.values()) == figures.cycles["exit"]


def discards(page: int, rounds: int) -> list[Any]:
    return [step for _ in range(rounds) for step in (("touch", page, WRITE), ("discard", page, 1))]


@pytest.mark.parametrize("interrupts", ["exit", "posted", "virtual"])
def test_exits_of_a_guest_s_interrupts_are_in_the_table_of_exits(interrupts: str) -> None:
    """Ten shootdowns of one other CPU: an exit each to send (not virtual), two each to take (not posted)."""
    streams = [Threads([Script(discards(0, 10)), Script([("touch", 1, READ, 100_000)] * 10)])]
    override = {"cost": COSTS, "interrupts": interrupts}
    _, outcome = run(scenario(vm(vcpus=2), cores=2, cpu_override=override), streams)
    exits = outcome.vms[0].exits
    assert exits.get("IPI", (0, 0))[0] == (0 if interrupts == "virtual" else 10)
    assert exits.get("INTERRUPT", (0, 0))[0] == (20 if interrupts == "exit" else 0)


def test_two_senders_at_once_need_one_interrupt_of_a_third() -> None:
    """Natively: two threads discard in step, from one barrier on; the third finds the work of both at one interrupt."""
    rounds = 6
    first = [step for _ in range(rounds) for step in (("touch", 0, WRITE), ("barrier",), ("discard", 0, 1))]
    second = [step for _ in range(rounds) for step in (("touch", 9, WRITE), ("barrier",), ("discard", 9, 1))]
    third = [step for _ in range(rounds) for step in (("touch", 5, READ), ("barrier",), ("touch", 5, READ, 3000))]
    streams = [Threads([Script(steps) for steps in (first, second, third)])]
    what = scenario(vm(mode="native", vcpus=3), cores=3, cpu_override={"cost": COSTS | {"ipi_latency": 50_000}})
    counts = run(what, streams)[1].vms[0].figures.named("shootdowns")
    assert counts["merged"] > 0
    assert counts["requests"] < counts["interrupts"] + counts["merged"] <= 2 * counts["requests"]
