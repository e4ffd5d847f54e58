"""Does a guest give back what its host asks for, by the protocol of virtio-balloon, and can a program not tell?"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.oracle.balloon import Driver, Message
from tests.simulation.small import PAGE, READ, WRITE, Script, Step, Threads, run, scenario, time_adds_up, touches, vm
from vmsim.base.errors import InputError
from vmsim.contracts import Moment
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario
from vmsim.tables.backing import BALLOONED, SHARED

MODES = ("ept", "npt", "shadow", "agile", "vkernel", "paired")
PAGES = 1024  # of a VM of 4 MiB
HOST: dict[str, Any] = {"what_if": True, "memory": "32MiB", "cores": 2}


def balloon(**keys: Any) -> dict[str, Any]:
    return {"size": "1MiB", "message": 64} | keys


def long(times: int, pages: int = 100) -> list[Step]:
    """Return steps that write to pages again and again: 2,000 cycles each time."""
    return [*touches(range(pages), WRITE), *(("touch", number % pages, WRITE, 2000) for number in range(times))]


def figures(outcome: Outcome, component: str, number: int = 0) -> dict[str, int]:
    return outcome.vms[number].figures.named(component)


def messages(outcome: Outcome) -> list[Message]:
    """Return the messages of drivers from the transfers noted: what, and by how much the balloon changed."""
    sizes = [0, *(each.level for each in outcome.transfers if each.what in ("inflate", "deflate"))]
    return [
        Message("inflate" if new > old else "deflate", abs(new - old)) for old, new in pairwise(sizes) if new != old
    ]


def ballooned(simulation: Simulation) -> None:
    """See that what is in a balloon, and has been acknowledged, has no memory, and that no other page is marked so."""
    for machine in simulation.vms:
        if machine.gone or not machine.balloon or not machine.balloon.driver or not machine.slot:
            continue
        states = machine.kernel.frames.frames["state"]
        marked = np.flatnonzero(machine.slot.backing == BALLOONED)
        assert (states[marked] == State.HOST).all()
        spec = machine.balloon.spec
        order = spec.order
        inside = {page + part for page in machine.balloon.driver.pages for part in range(1 << order)}
        backed = machine.slot.backing & (1 | SHARED) != 0
        late = [page for page in inside if backed[page]]
        assert len(late) <= spec.message << order  # the message under way


@pytest.mark.parametrize("populate", ["lazy", "eager"])
@pytest.mark.parametrize("mode", MODES)
def test_the_balloon_follows_its_target_in_every_mode_and_programs_cannot_tell(mode: str, populate: str) -> None:
    """Up to 256 pages, down to none, up to 300: the messages are those of the twin, and every frame is back."""
    steps = long(9000)
    table = vm(mode=mode, populate=populate, vcpus=2)
    streams = [Threads([Script(steps), Script(steps)])]
    quiet, calm = run(scenario(table, **HOST), streams)
    sizes = balloon(schedule=[["3ms", 0], ["4500us", 300 * PAGE]])
    what = scenario(table | {"balloon": sizes}, **HOST)
    simulation, outcome = run(what, streams, every=600_011, look=ballooned, events=10**6)
    assert outcome.ending is None
    assert time_adds_up_for(outcome, 2)
    twin = Driver(PAGES, 64)
    assert messages(outcome) == [*twin.follow(256), *twin.follow(0), *twin.follow(300)]
    assert outcome.vms[0].counters["accesses"] == calm.vms[0].counters["accesses"]
    assert outcome.vms[0].memory["balloon"] == outcome.vms[0].memory["balloon_target"] == 300
    freed, kicks = figures(outcome, "balloon")["freed"], figures(outcome, "exits").get("KICK", 0)
    if populate == "eager":  # the first 256, and 44 more: those that were there twice came back untouched
        assert freed == 300
        assert kicks == (0 if mode in ("shadow", "vkernel") else 600)  # what is free is in no shadow
    else:  # of what was never touched there is none, but for what the slower of two vCPUs that fault had taken
        assert freed <= 2
    assert simulation.host.free == quiet.host.free


def time_adds_up_for(outcome: Outcome, vcpus: int) -> bool:
    return all(sum(each.cycles.values()) <= vcpus * (each.finish - each.start) for each in outcome.vms)


def alone(populate: str, wait: int = 3_000_000, **keys: Any) -> tuple[Scenario, Simulation, Outcome]:
    """Run a VM of one vCPU whose program waits for a device for so many ns while its host asks for 64 pages."""
    what = scenario(vm(populate=populate, balloon=balloon(size=64 * PAGE, **keys)), **HOST)
    simulation, outcome = run(what, [Script([("touch", 0, WRITE), ("io", 0, 1, wait)])], every=1_000_003)
    return what, simulation, outcome


def test_an_idle_vcpu_gives_and_takes_back_many_messages() -> None:
    """Work that is asked for while it does other work is done before it idles again."""
    what, _, outcome = alone("eager", message=4, schedule=[["8ms", 0]], wait=18_000_000)
    cost = what.cpu.cost
    assert messages(outcome) == [Message("inflate", 4)] * 16 + [Message("deflate", 4)] * 16
    last = [each for each in outcome.transfers if each.what == "deflate"][-1]
    start = what.cpu.frequency * 8 // 1000
    each = cost.balloon_message + 4 * (cost.balloon_entry + cost.balloon_release)
    assert 16 * each <= last.time - start + 4 * cost.balloon_release < 1.02 * 16 * each


@pytest.mark.parametrize("populate", ["lazy", "eager"])
def test_a_message_costs_what_its_parts_cost(populate: str) -> None:
    """64 pages by hand: one way to the device and back, each page found and discarded; unmapped where it was backed."""
    what, _, outcome = alone(populate)
    cost = what.cpu.cost
    each = cost.balloon_entry + cost.discard_call + (cost.discard_page if populate == "eager" else 0)
    assert figures(outcome, "balloon") | {"cycles": cost.balloon_message + 64 * each} == figures(outcome, "balloon")
    assert outcome.vms[0].cycles["balloon"] == 64 * cost.balloon_page  # the driver looked by itself: no interrupt
    assert figures(outcome, "exits")["BALLOON"] == 1


def test_an_idle_vcpu_does_the_drivers_work_while_its_program_waits() -> None:
    _, simulation, outcome = alone("eager")
    (inflated,) = [each.time for each in outcome.transfers if each.what == "inflate"]
    assert inflated < outcome.vms[0].finish / 2  # the program waits for 3 ms
    assert outcome.vms[0].waits["io_wait"] == 1
    assert simulation.vms[0].balloon
    assert simulation.vms[0].balloon.device.actual == 64


def test_a_guest_without_free_pages_waits_for_200_ms_and_tries_again() -> None:
    """Of 1,024 frames 400 are the program's, then 100: the second part follows 200 ms after the first was cut short."""
    steps = [*long(12_000, 400), ("unmap", 100, 300)]
    steps += [("touch", number % 100, WRITE, 50_000) for number in range(16_000)]
    what = scenario(vm(balloon=balloon(size=0, message=256, schedule=[["4ms", 900 * PAGE]])), **HOST)
    simulation, outcome = run(what, [Script(steps)], events=10**6)
    driver = figures(outcome, "balloon_driver")
    assert driver["short"] > 0
    assert outcome.vms[0].finished
    assert outcome.vms[0].memory["balloon"] == 900
    times = [each.time for each in outcome.transfers if each.what == "inflate"]
    assert max(np.diff(times)) >= what.cpu.frequency // 5
    assert simulation.host.free == simulation.host.size


@pytest.mark.parametrize("deflates", [False, True])
def test_a_guest_out_of_memory_takes_pages_out_of_its_balloon_if_it_may(deflates: bool) -> None:
    """900 of 1,024 frames are in the balloon, and the program wants 300: 256 come back at a time (oom_pages)."""
    steps = [("touch", 0, WRITE), ("io", 0, 1, 8_000_000), *touches(range(300), WRITE)]
    table = vm(balloon=balloon(size=900 * PAGE, message=256, deflate_on_oom=deflates))
    _, outcome = run(scenario(table, **HOST), [Script(steps)], every=1_000_003, look=ballooned)
    driver = figures(outcome, "balloon_driver")
    if deflates:
        assert outcome.ending is None
        assert (driver["oom"], driver["oom_pages"], outcome.vms[0].memory["balloon"]) == (1, 256, 644)
        assert time_adds_up(outcome)
        assert outcome.vms[0].waits["balloon"] == 1
    else:
        assert outcome.ending is not None
        assert "ran out of its own memory" in outcome.ending.message
        assert outcome.vms[0].memory["balloon"] == 900


def test_a_guest_that_has_no_driver_gives_nothing_and_is_said_to() -> None:
    table = vm(populate="eager", balloon={"size": "1MiB", "driver": False})
    simulation, outcome = run(scenario(table, **HOST), [Script(long(300))], every=1_000_003)
    assert outcome.ending is None
    memory = outcome.vms[0].memory
    assert (memory["balloon"], memory["balloon_target"]) == (0, 256)
    assert simulation.host.free == simulation.host.size


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("times", [1, 150, 400])
def test_a_vm_that_ends_while_its_balloon_is_filled_leaves_nothing_behind(mode: str, times: int) -> None:
    """Its last message is cut off where it is; nothing of it delays the end of the simulation."""
    table = vm(mode=mode, populate="eager", balloon=balloon(size="3MiB", message=256))
    simulation, outcome = run(scenario(table, **HOST), [Script(long(times))], every=1_000_003)
    only = outcome.vms[0]
    assert only.finished
    assert only.memory["balloon"] < only.memory["balloon_target"] == 768
    assert simulation.host.free == simulation.host.size - sum(simulation.host.count(-1).values())
    assert outcome.end < only.finish + 1_000_000  # the return of its pool's pages, an audit


def test_what_the_host_had_in_swap_is_gone_with_the_balloon() -> None:
    """A reclaimer takes pages that then go into the balloon: no page of a balloon has contents anywhere."""
    seen: list[int] = []

    def look(simulation: Simulation) -> None:
        ballooned(simulation)
        slot = simulation.vms[0].slot
        assert slot
        assert not any(slot.backing[gfn] == BALLOONED for gfn in slot.contents)
        seen.append(int((slot.backing == BALLOONED).sum()))

    table = vm(populate="eager", balloon=balloon(schedule=[["3ms", 0], ["4ms", "2MiB"]]))
    what = scenario(table, reclaim={"rate": 200_000}, **HOST)
    simulation, outcome = run(what, [Script(long(9000, 200))], every=300_007, look=look, events=10**6)
    assert outcome.ending is None
    assert max(seen) == 512
    assert simulation.host.free == simulation.host.size


@pytest.mark.parametrize("host_page", ["4K", "2M"])
def test_a_balloon_of_large_pages_takes_blocks(host_page: str) -> None:
    """Three blocks of 2 MiB, one entry each; a large page of the host's is one page to unmap."""
    table = vm(memory="16MiB", host_page=host_page, populate="eager", balloon={"size": "6MiB", "page": "2M"})
    what = scenario(table, **HOST)
    simulation, outcome = run(what, [Script([("touch", 0, WRITE), ("io", 0, 1, 20_000_000)])], every=1_000_003)
    cost, device = what.cpu.cost, figures(outcome, "balloon")
    each = cost.balloon_entry + cost.discard_call + cost.discard_page * (512 if host_page == "4K" else 1)
    assert (device["blocks"], device["freed"]) == (3, 1536)
    assert device["cycles"] == cost.balloon_message + 3 * each
    assert simulation.host.free == simulation.host.size


def test_statistics_say_what_the_guest_has_free() -> None:
    """Of 1,024 frames 256 are in the balloon; the program's 100 pages and 4 tables are not free (4-level tables)."""
    found: list[Any] = []

    def look(what: Moment, host: Any, vm: Any) -> None:
        if what is Moment.VM_FINISHED:
            found.append(vm.balloon.device.statistics)

    what = scenario(vm(balloon=balloon(statistics="1ms")), **HOST)
    simulation = Simulation(what, streams=[Script(long(5000))], observers=[look])
    outcome = simulation.run()
    assert found == [(PAGES - 256 - 100 - 4, PAGES - 256, 100)]
    assert figures(outcome, "balloon")["told"] == outcome.vms[0].finish // (what.cpu.frequency // 1000)


def test_two_vms_trade_memory_by_their_balloons() -> None:
    """Frames that one VM gives back let the other run, which asked for more than the host had."""
    host = HOST | {"memory": "5MiB"}
    giver = vm("giver", populate="eager", memory="4MiB", balloon=balloon(size="3MiB"))
    taker = vm("taker", memory="4MiB", start="100us")
    streams = [Script(long(4000, 20)), Script([*touches(range(600), WRITE), *touches(range(600), READ)])]
    simulation, outcome = run(scenario(giver, taker, **host), streams, every=600_011, look=ballooned, events=10**6)
    assert outcome.ending is None
    assert all(each.finished for each in outcome.vms)
    assert simulation.host.free == simulation.host.size


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"message": 5}, "message.*it has no effect without"),
        ({"size": "4MiB"}, "size.*4MiB of a VM of 4MiB"),
        ({"size": "1MiB", "page": "2M"}, "less than one page of 2M"),
        ({"size": "1MiB", "driver": False, "reporting": True}, "reporting.*it has no effect with balloon.driver"),
        ({"size": "1MiB", "reporting_order": 3}, "reporting_order.*it has no effect with balloon.reporting"),
        ({"schedule": [["2ms", 0], ["1ms", "1MiB"]]}, "not in ascending order"),
        ({"schedule": [["2ms"]]}, "expected a time and a size"),
        ({"schedule": 5}, "expected rows"),
    ],
)
def test_what_a_balloon_cannot_be_asked_is_refused_with_the_reason(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Scenario.from_tables(scenario(vm()).model_dump(exclude_none=True) | {"vm": [vm(balloon=keys)]})


@pytest.mark.parametrize("keys", [{"mode": "native"}, {"mode": "paired", "paired": {"guest": False}}])
def test_programs_without_a_guest_have_no_balloon(keys: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no kernel of a guest"):
        Scenario.from_tables(scenario(vm()).model_dump(exclude_none=True) | {"vm": [vm(balloon=balloon(), **keys)]})


def test_a_change_to_mode_native_takes_the_balloon_away() -> None:
    assert not scenario(vm(balloon=balloon())).with_mode("native").vm[0].balloon.given


def test_a_schedule_is_written_as_it_is_read() -> None:
    sizes = balloon(schedule=[["3ms", 0], ["4500us", "1200KiB"]], page="4K", reporting=True, reporting_order=0)
    what = scenario(vm(balloon=sizes))
    assert Scenario.from_toml(what.to_toml()) == what
    assert what.vms[0].balloon
    frequency = what.cpu.frequency // 1_000_000
    assert what.vms[0].balloon.steps == ((0, 256), (3000 * frequency, 0), (4500 * frequency, 300))
