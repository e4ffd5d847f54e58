"""Does a guest plug and unplug the memory that its host asks for, by the protocol of virtio-mem, whatever is in it?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle.virtio_mem import Driver, Request
from tests.simulation.small import PAGE, READ, WRITE, Script, Step, Threads, run, scenario, time_adds_up, touches, vm
from vmsim.base.errors import InputError
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.record.outcome import Outcome
from vmsim.scenario import Scenario
from vmsim.tables.backing import BALLOONED, SHARED

MODES = ("ept", "npt", "shadow", "agile", "vkernel", "paired")
BLOCK = 512  # pages
HOST: dict[str, Any] = {"what_if": True, "memory": "64MiB", "cores": 2}
QUICK = {
    "cost": {"unplug_page": 2, "hotplug_page": 2, "discard_page": 20}
}  # of scripts that last for less than Linux's steps


def device(**keys: Any) -> dict[str, Any]:
    return {"region": "8MiB"} | keys


def figures(outcome: Outcome, component: str, number: int = 0) -> dict[str, int]:
    return outcome.vms[number].figures.named(component)


def requests(outcome: Outcome) -> list[Request]:
    """Return the requests of drivers from the transfers noted, in blocks: the changes of what is plugged."""
    return [Request(each.what, each.level // BLOCK) for each in outcome.transfers if each.what in ("plug", "unplug")]


def plugged(simulation: Simulation) -> None:
    """See that what is not plugged has no memory, and nobody uses it, and that no other page is marked so."""
    for machine in simulation.vms:
        if machine.gone or not machine.virtio_mem or not machine.slot:
            continue
        hotplug, spec = machine.virtio_mem, machine.virtio_mem.spec
        states = machine.kernel.frames.frames["state"]
        has = np.repeat(hotplug.driver.plugged, spec.block)
        absent = spec.first + np.flatnonzero(~has)
        assert (states[absent] == State.HOST).all()
        marked = np.flatnonzero(machine.slot.backing == BALLOONED)
        assert np.isin(marked, absent).all() or hotplug.device.plugged > has.sum()  # given, and not online yet
        if hotplug.device.plugged == has.sum():  # no request is on its way
            assert not (machine.slot.backing[absent] & (1 | SHARED)).any()
        assert machine.frames.offline == hotplug.driver.held


def long(times: int, pages: int = 100) -> list[Step]:
    """Return steps that write to pages again and again: 2,000 cycles each time."""
    return [*touches(range(pages), WRITE), *(("touch", number % pages, WRITE, 2000) for number in range(times))]


@pytest.mark.parametrize("populate", ["lazy", "eager"])
@pytest.mark.parametrize("mode", MODES)
def test_the_driver_follows_what_is_requested_in_every_mode_and_programs_cannot_tell(mode: str, populate: str) -> None:
    """4 blocks, then 1, then 3: requests as the twin's; every frame is back at the end."""
    streams = [Threads([Script(long(3000)), Script(long(3000))])]
    table = vm(mode=mode, populate=populate, vcpus=2, memory="16MiB")
    quiet, calm = run(scenario(table, **HOST), streams)
    asked = device(schedule=[["500us", "2MiB"], ["2ms", "6MiB"]])
    what = scenario(table | {"virtio_mem": asked}, cpu_override=QUICK, **HOST)
    simulation, outcome = run(what, streams, every=600_011, look=plugged, events=10**6)
    assert outcome.ending is None
    twin = Driver(blocks=4, plugged=4)
    assert requests(outcome) == [*twin.follow(1), *twin.follow(3)]
    memory = outcome.vms[0].memory
    assert (memory["plugged"], memory["plugged_target"]) == (3 * BLOCK, 3 * BLOCK)
    assert outcome.vms[0].counters["accesses"] == calm.vms[0].counters["accesses"]
    assert figures(outcome, "virtio_mem")["freed"] == (3 * BLOCK if populate == "eager" else 0)
    assert simulation.host.free == quiet.host.free


def inside(simulation: Simulation) -> int:
    """Return how many pages of programs lie in the region."""
    machine = simulation.vms[0]
    states = machine.kernel.frames.frames["state"][machine.spec.virtio_mem.first :]
    return int(np.count_nonzero(states == State.GUEST))


@pytest.mark.parametrize("page", ["4K", "2M"])
@pytest.mark.parametrize("mode", MODES)
def test_pages_in_the_way_are_moved_within_the_guest_and_stay_what_they_are(mode: str, page: str) -> None:
    """A program fills 5 MiB of 8, frees the first 2.5, and the host asks for all 4 MiB of the region.

    With large pages it is all twice as much. The program goes on to use what it has, by two threads, in each mode;
    --check finds every translation right.
    """
    if page == "2M" and mode == "vkernel":
        pytest.skip("a vkernel maps small pages")
    half = 640 if page == "4K" else 1536
    first = [("map", 0, 2 * half), *touches(range(2 * half), WRITE), ("unmap", 0, half), ("io", half, 1, 40_000_000)]
    last = [("touch", half + number * 7 % half, number % 2, 300) for number in range(300)]
    sizes = ("8MiB", "4MiB") if page == "4K" else ("16MiB", "8MiB")
    hotplug = device(region=sizes[1], schedule=[["20ms", 0]])
    table = vm(mode=mode, vcpus=2, memory=sizes[0], guest_page=page, virtio_mem=hotplug)
    what = scenario(table, cpu_override=QUICK, **HOST)
    streams = [Threads([Script([*first, *last]), Script([("touch", half, READ), ("io", half, 1, 50_000_000), *last])])]
    simulation, outcome = run(what, streams, every=5_600_011, look=plugged, events=10**6)
    assert outcome.ending is None
    assert outcome.vms[0].memory["plugged"] == 0
    assert inside(simulation) == 0
    driver = figures(outcome, "virtio_mem_driver")
    assert driver["moved_large" if page == "2M" else "moved"] > 0
    assert figures(outcome, "exits")["VIRTIO_MEM"] == (2 if page == "4K" else 4)
    assert simulation.host.free == simulation.host.size - sum(simulation.host.count(-1).values())


IDLE: list[Step] = [("touch", 0, WRITE), ("io", 0, 1, 40_000_000)]


def one(steps: list[Step], **keys: Any) -> tuple[Scenario, Simulation, Outcome]:
    """Run a VM of one vCPU with 4 MiB beside its device's memory."""
    more = {key: keys.pop(key) for key in ("files", "balloon", "populate") if key in keys}
    cost = {"cost": keys.pop("cost", {})}
    table = vm(memory=keys.pop("memory", "12MiB"), virtio_mem=device(**keys), **more)
    what = scenario(table, cpu_override=cost, **HOST)
    simulation, outcome = run(what, [Script(steps)], every=5_000_003, look=plugged, events=10**6)
    return what, simulation, outcome


def test_a_request_costs_what_its_parts_cost() -> None:
    """One block of 2 MiB, by hand: looked through for what is in it, isolated, told; each of its pages discarded."""
    what, _, outcome = one(IDLE, schedule=[["1ms", "6MiB"]], populate="eager")
    cost = what.cpu.cost
    assert outcome.vms[0].cycles["hotplug"] == BLOCK * (cost.log_scan + cost.unplug_page)
    of_device = figures(outcome, "virtio_mem")
    assert of_device["cycles"] == cost.hotplug_message + cost.discard_call + BLOCK * cost.discard_page
    assert (of_device["messages"], of_device["freed"], of_device["pages_unplugged"]) == (1, BLOCK, BLOCK)
    _, _, back = one(IDLE, size="6MiB", schedule=[["1ms", "8MiB"]])
    assert back.vms[0].cycles["hotplug"] == BLOCK * cost.hotplug_page + cost.ipi_handle  # the host's answer
    assert figures(back, "virtio_mem")["cycles"] == cost.hotplug_message


def test_memory_blocks_of_128_mib_that_are_not_needed_go_by_one_request() -> None:
    """Of two memory blocks, one and a half are to go: the upper as a whole, of the lower the upper half one by one."""
    sizes = {"memory": "264MiB", "region": "256MiB"}
    _, _, outcome = one(IDLE, **sizes, schedule=[["1ms", "64MiB"], ["10ms", "256MiB"]], cost={**QUICK["cost"]})
    twin = Driver(blocks=128, plugged=128)
    expected = [*twin.follow(32), *twin.follow(128)]
    assert [each.what for each in expected] == ["unplug"] * 33 + ["plug"] * 2
    assert requests(outcome) == expected


def test_what_cannot_be_moved_keeps_its_block_which_is_tried_again() -> None:
    """Pages that a child shares stay where they are; when it has gone and they were written to, the block goes.

    Ten pages, which lie in the middle of all, are left in one of the two blocks of the region; the other goes at once.
    """
    fill = [("map", 0, 1900), *touches(range(1900), WRITE), ("unmap", 1, 599), ("unmap", 610, 1290)]
    steps = [*fill, ("fork", 2), ("io", 0, 1, 30_000_000), ("exit", 2)]
    steps += [*touches(range(600, 610), WRITE), ("io", 0, 1, 60_000_000), *touches(range(600, 610), READ)]
    keys = {"memory": "8MiB", "region": "4MiB", "schedule": [["20ms", 0]], "retry": "10ms"}
    _, simulation, outcome = one(steps, **keys, cost=QUICK["cost"])
    driver = figures(outcome, "virtio_mem_driver")
    assert outcome.ending is None
    assert driver["failed"] == driver["busy"] >= 1
    assert driver["retries"] >= 1
    assert driver["moved"] >= 10
    assert outcome.vms[0].memory["plugged"] == 0
    assert inside(simulation) == 0
    assert [each.plugged for each in requests(outcome)] == [1, 0]
    times = [each.time for each in outcome.transfers if each.what == "unplug"]
    assert times[1] - times[0] > 20_000_000  # cycles of 10 ms: the timer came between


def test_pages_of_files_are_moved_too_and_no_page_table_is() -> None:
    """1,100 pages of a file fill the 4 MiB below the region and more; two blocks above hold some of them."""
    size = 1500 * PAGE
    read = [("open_file", 1, 0, size), *(("read_file", 1, at * PAGE, 64 * PAGE) for at in range(0, 1472, 64))]
    steps = [("touch", 0, WRITE), *read, ("drop_file", 1, 0, 1000 * PAGE), ("io", 0, 1, 40_000_000)]
    again = [("read_file", 1, at * PAGE, 64 * PAGE) for at in range(1024, 1472, 64)]
    keys = {"memory": "8MiB", "region": "4MiB", "schedule": [["30ms", 0]], "files": {"disk": "nvme"}}
    _, _, outcome = one([*steps, *again, ("touch", 0, READ)], **keys, cost=QUICK["cost"])
    assert outcome.ending is None
    assert outcome.vms[0].memory["plugged"] == 0
    assert figures(outcome, "virtio_mem_driver")["moved"] > 0
    assert figures(outcome, "page_cache")["read_in"] <= 1500  # what was moved was not read again


def test_a_page_that_a_device_works_on_keeps_its_block() -> None:
    fill = [("map", 0, 1900), *touches(range(1900), WRITE), ("unmap", 0, 600), ("unmap", 610, 1290)]
    steps = [*fill, ("io", 600, 1, 30_000_000), ("touch", 600, READ)]
    keys = {"memory": "8MiB", "region": "4MiB", "schedule": [["20ms", 0]]}
    _, _, outcome = one(steps, **keys, cost=QUICK["cost"])
    assert outcome.vms[0].memory["plugged"] == BLOCK
    assert figures(outcome, "virtio_mem_driver")["busy"] == 1


@pytest.mark.parametrize("mode", MODES)
def test_what_one_vm_unplugs_lets_another_run(mode: str) -> None:
    """A host of 14 MiB: one VM has 12 until 8 of it are unplugged; another then touches 5."""
    giver = vm("giver", mode=mode, memory="12MiB", populate="eager", virtio_mem=device(schedule=[["10us", 0]]))
    taker = vm("taker", mode=mode, memory="8MiB", start="1ms")
    host = HOST | {"memory": "14MiB", "cpu_override": QUICK}
    streams = [Script(IDLE), Script([*touches(range(1280), WRITE), *touches(range(1280), READ)])]
    simulation, outcome = run(scenario(giver, taker, **host), streams, every=9_600_011, look=plugged, events=10**6)
    assert outcome.ending is None
    assert all(each.finished for each in outcome.vms)
    assert simulation.host.free == simulation.host.size - sum(simulation.host.count(-1).values())


@pytest.mark.parametrize("mode", MODES)
def test_a_vm_that_ends_while_its_memory_is_unplugged_leaves_nothing_behind(mode: str) -> None:
    table = vm(mode=mode, memory="12MiB", populate="eager", virtio_mem=device(schedule=[["10us", 0]]))
    simulation, outcome = run(scenario(table, **HOST), [Script(long(2500, 20))], every=3_000_003)
    assert outcome.vms[0].finished
    assert 0 < outcome.vms[0].memory["plugged"] < 4 * BLOCK
    assert simulation.host.free == simulation.host.size - sum(simulation.host.count(-1).values())


def test_a_guest_without_a_driver_keeps_what_it_has() -> None:
    _, _, outcome = one(IDLE, driver=False, size="4MiB")
    memory = outcome.vms[0].memory
    assert (memory["plugged"], memory["plugged_target"]) == (2 * BLOCK, 2 * BLOCK)


def test_a_policy_of_the_host_takes_memory_by_it() -> None:
    """The host's parts are made equal: a VM without a balloon gives up blocks of its device's memory."""
    idle = vm("idle", memory="12MiB", populate="eager", virtio_mem=device(max="8MiB"))
    host = HOST | {"memory": "16MiB", "overcommit": {"policy": "prorata", "every": "1ms"}}
    host |= {"prorata": {"free": 60.0}}
    simulation, outcome = run(scenario(idle, cpu_override=QUICK, **host), [Script(IDLE)], look=plugged, every=5_000_003)
    assert figures(outcome, "overcommit")["asked"] >= 1
    assert outcome.vms[0].memory["plugged"] < 4 * BLOCK
    assert time_adds_up(outcome)
    assert simulation.host.free == simulation.host.size


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"block": "4MiB"}, "block.*it has no effect without"),
        ({"region": "12MiB"}, "12MiB of a VM of 12MiB"),
        ({"region": "3MiB"}, "3MiB of region is not a whole number of blocks of 2MiB"),
        ({"region": "8MiB", "block": "8MiB"}, "12MiB of memory is not a whole number of blocks"),
        ({"region": "8MiB", "size": "10MiB"}, "10MiB is more than the region"),
        ({"region": "8MiB", "size": "1MiB"}, "less than one block of 2MiB"),
        ({"region": "8MiB", "schedule": [["2ms", 0], ["1ms", "2MiB"]]}, "not in ascending order"),
        ({"region": "8MiB", "driver": False, "retry": "1s"}, "retry.*no effect with virtio_mem.driver"),
        ({"region": "8MiB", "max": "2MiB", "schedule": [["1ms", 0]]}, "the host's policy sets the size"),
        ({"region": "8MiB", "max": "2MiB"}, "virtio_mem.max has no effect with 'none'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Scenario.from_tables({"host": {"memory": "64MiB"}, "vm": [vm(memory="12MiB", virtio_mem=keys)]})


def test_a_program_on_the_host_itself_has_no_such_memory() -> None:
    with pytest.raises(InputError, match=r"virtio_mem.region.*no kernel of a guest"):
        Scenario.from_tables({"vm": [vm(memory="12MiB", mode="native", virtio_mem=device())]})
