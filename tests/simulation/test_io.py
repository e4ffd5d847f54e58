"""Does input and output suspend the vCPU that asked for it, pin its buffer meanwhile, and let the others run on?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.record.messages import Kind
from vmsim.record.outcome import Outcome

NANOSECONDS = 50_000
PAGES = 4


def disk(name: str = "vm", **keys: Any) -> dict[str, Any]:
    reads = {"kind": "disk", "footprint": 64 * PAGE, "reads": 5, "block": PAGES * PAGE, "device": "50us"}
    return {**vm(name, **keys), "workload": reads}


def device(simulation: Simulation) -> int:
    return NANOSECONDS * simulation.scenario.cpu.frequency // 10**9


@pytest.mark.parametrize("mode", ["ept", "npt", "shadow", "paired"])
def test_a_vm_asks_its_host_to_pin_the_buffer_and_waits(mode: str) -> None:
    simulation, outcome = run(scenario(disk(mode=mode), what_if=True))
    (figures,), costs = outcome.vms, simulation.scenario.cpu.cost
    said = [(each.kind, each.pages, each.cycles) for each in outcome.messages if each.kind >= Kind.PIN]
    pin = costs.message + PAGES * costs.pin_page
    assert said == 5 * [(Kind.PIN, PAGES, pin), (Kind.IO_DONE, PAGES, costs.message), (Kind.UNPIN, PAGES, pin)]
    assert figures.waits["io_wait"] == figures.exits["IO"][0] == 5
    assert figures.cycles["io_wait"] == 5 * (2 * pin + costs.message + device(simulation))
    assert figures.exits["IO"][1] == 5 * (costs.vm_exit + costs.violation_resume)
    assert time_adds_up(outcome)
    assert (simulation.vms[0].io.pinned, simulation.vms[0].io.most) == (0, PAGES)


def test_a_program_on_the_host_waits_for_the_device_alone() -> None:
    simulation, outcome = run(scenario(disk(mode="native")))
    (figures,) = outcome.vms
    assert not [each for each in outcome.messages if each.kind >= Kind.PIN]
    assert figures.cycles["io_wait"] == 5 * device(simulation)
    assert figures.exits == {}
    assert time_adds_up(outcome)


def test_the_buffer_is_brought_in_before_the_device_starts() -> None:
    """All its pages are mapped by the first request, so that touching them afterwards faults no more."""
    _, once = run(scenario(vm(mode="ept")), [Io(touches(range(PAGES)))])
    _, twice = run(scenario(vm(mode="ept")), [Script(touches(range(PAGES)))])
    assert once.vms[0].guest_faults == twice.vms[0].guest_faults == PAGES


class Io(Script):
    """A script that reads its first pages from a device before it does anything else."""

    def chunks(self, thread: int = 0) -> Any:
        from vmsim.workloads import Event, Op

        for chunk in super().chunks():
            first = Event(0, Op.IO, 1, BASE, PAGES * PAGE, NANOSECONDS)
            yield chunk._replace(events=(first, *chunk.events))


def test_others_run_while_one_waits() -> None:
    """Two VMs on one core: one waits for its device, the other computes; together they take as long as the longer."""

    def took(*vms: dict[str, Any]) -> Outcome:
        return run(scenario(*vms, memory="64MiB", quantum="5us"), events=400_000)[1]

    busy = vm("busy", workload={"kind": "uniform", "footprint": 16 * PAGE, "accesses": 20_000, "compute": 10})
    alone = took(disk())
    both = took(disk(), busy)
    assert both.end < alone.end + 0.5 * took(busy).end < 1.3 * alone.end


def test_a_device_has_a_time_of_its_own() -> None:
    with pytest.raises(InputError, match=r"device \(vm\): found 200cycles, expected a time"):
        scenario(disk()).replace(**{"vm.workload.device": "200cycles"})


def test_writes_and_reads_of_the_script_are_unchanged() -> None:
    _, outcome = run(scenario(vm(mode="ept")), [Io([*touches(range(3), WRITE), *touches(range(2), READ)])])
    assert (outcome.vms[0].counters["accesses"], outcome.vms[0].counters["writes"]) == (5, 3)
