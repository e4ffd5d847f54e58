"""May the host take any page of a program that runs on it, without the program's noticing anything but time?"""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from vmsim.engine.check.host import BrokenInvariant
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.host.native_memory import NativeMemory

STEPS: list[Any] = [
    *touches(range(60), WRITE),
    ("fork", 2),
    *touches(range(0, 60, 2), WRITE),
    ("switch", 2),
    *touches(range(1, 60, 3), WRITE),
    ("exit", 2),
    ("by", 1),
    ("unmap", 10, 20),
    *touches(range(60), READ),
    ("io", 0, 30, 20_000),
    ("protect", 0, 20, 1),
    *touches(range(60), READ),
    ("discard", 5, 30, 0),
    *touches(range(20, 60), WRITE),
]
RECLAIM = {"rate": 200_000, "batch": 2}


def program(**keys: Any) -> dict[str, Any]:
    return vm(mode="native", memory="4MiB", **keys)


@pytest.mark.parametrize("policy", ["random", "clock"])
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_what_a_program_does_goes_on_and_costs_page_faults(levels: int, policy: str) -> None:
    base = 0x1000_0000 if levels < 4 else BASE
    host = {"memory": "16MiB", "what_if": True}
    table = program(guest_levels=levels)
    table["workload"] = table["workload"] | {"base": base}
    what = scenario(table, **host)
    steps = Script(STEPS * 8, base=base)
    _, calm = run(what, [steps])
    simulation, taken = run(what.replace(**{"host.reclaim": RECLAIM | {"policy": policy}}), [steps], every=60_013)
    (before,), (after,) = calm.vms, taken.vms
    count = after.figures.named("guest_memory")["taken"]
    assert count > 100
    assert after.counters["accesses"] == before.counters["accesses"]
    assert before.guest_faults < after.guest_faults <= before.guest_faults + count
    assert time_adds_up(taken)
    assert (simulation.host.frames["state"] == State.FREE).all()


def test_pages_of_2_mib_are_left_whole() -> None:
    what = scenario(vm(mode="native", memory="16MiB", guest_page="2M"), memory="64MiB", reclaim=RECLAIM)
    steps = [*touches(range(1000)), ("compute", 10_000_000), *touches(range(1000))]
    _, outcome = run(what, [Script(steps)], every=50_021)
    assert outcome.vms[0].figures.named("guest_memory")["taken"] == 0
    assert outcome.vms[0].finished


def test_programs_that_need_more_than_the_host_has_go_on_where_pages_are_taken() -> None:
    """Three of 400 pages on a host of 1,000; without the reclaimer two wait for good."""
    tables = [vm(name, mode="native", memory="4MiB") for name in "abc"]
    streams = [Script([step for _ in range(4) for step in (*touches(range(400), WRITE), ("compute", 3_000_000))])] * 3
    what = scenario(*tables, memory=1000 * PAGE, cores=3, watermarks={"min": "40KiB", "low": "60KiB", "high": "80KiB"})
    assert run(what, streams)[1].ending is not None
    _, outcome = run(what.replace(**{"host.reclaim": {"rate": 500_000, "batch": 8}}), streams, every=1_000_003)
    assert outcome.ending is None
    assert all(each.finished for each in outcome.vms)


def test_an_entry_that_still_leads_to_a_page_that_was_taken_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vmsim.host.native_memory.clear_entries", lambda *_: None)
    with pytest.raises(BrokenInvariant, match="isolation"):
        run(scenario(program(), memory="16MiB", reclaim=RECLAIM), [Script(STEPS * 8)], every=60_013)


def test_a_page_is_one_that_one_small_entry_maps() -> None:
    simulation = Simulation(scenario(program(populate="eager"), memory="16MiB"), streams=[Script(touches(range(9)))])
    (machine,) = simulation.vms
    machine.populate()
    pages = machine.pages
    assert isinstance(pages, NativeMemory)
    first, *others = pages.present().tolist()
    assert len(others) == 8
    simulation.host.pin(pages.present()[:1])
    assert not pages.take(first, 1).linear
    held = machine.frames.held  # type: ignore[attr-defined]
    assert pages.take(others[0], 1).linear
    assert machine.frames.held == held - 1  # type: ignore[attr-defined]
    assert pages.present().tolist() == [first, *others[1:]]


@pytest.mark.parametrize("paired", [{"guest": False}, {"guest_at": "50%"}], ids=str)
def test_programs_of_paired_kernels_go_on_likewise(paired: dict[str, Any]) -> None:
    table = vm(mode="paired", memory="4MiB", paired={"layout": "pointer", **paired})
    what, steps = scenario(table, memory="16MiB"), Script(touches(range(40), WRITE) * 30)
    _, calm = run(what, [steps])
    _, taken = run(what.replace(**{"host.reclaim": {"rate": 2_000_000}}), [steps], every=60_013)
    (before,), (after,) = calm.vms, taken.vms
    count = after.figures.named("guest_memory")["taken"]
    assert count > 20
    assert before.guest_faults < after.guest_faults <= before.guest_faults + count
    assert time_adds_up(taken)
