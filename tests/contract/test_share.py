"""Do pages that share a frame hold what they held, for those alone that may read them, until they are written to?

The verb itself is in the suite of all verbs (test_second_mmu.py). Here is who shares with whom: several VMs, programs
on the host itself, both; what a write to a shared page costs; and that `--check` sees what must not be.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
import simpy

from tests.simulation.small import PAGE, READ, WRITE, Script, run, scenario, time_adds_up, touches, vm
from tests.simulation.test_native_reclaim import STEPS
from vmsim.contracts import Flush, Moment
from vmsim.engine.check.host import BrokenInvariant, check_host, check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.memory import HOST
from vmsim.machine.memory import find_entry
from vmsim.tables.backing import SHARED

MODES = ("native", "ept", "npt", "shadow", "agile", "vkernel", "paired")


def data_of(machine: Any) -> list[int]:
    """Return the numbers of a VM's, or a program's, pages of data that have a frame of their own."""
    numbers = machine.pages.present()
    if machine.slot:
        numbers = numbers[machine.kernel.frames.frames["state"][numbers] == State.GUEST]
    return [int(number) for number in numbers if not machine.pages.pinned(number)]


def frame_of(machine: Any, number: int) -> int:
    return int(machine.slot.frame_of(number)) if machine.slot else number


def share_with(simulation: Simulation, machine: Any, number: int) -> None:
    """Have a page share the latest frame that data share, or its own if there is none."""
    host = simulation.host
    stable = [*host.shared][-1] if len(host.shared) and len(host.shared.users([*host.shared][-1])) < 6 else None
    machine.forget(machine.pages.share(number, frame_of(machine, number) if stable is None else stable))


def during(simulation: Simulation, period: int, work: Callable[[int], None]) -> None:
    """Do work each so many cycles."""

    def turns() -> Generator[simpy.Event, Any, None]:
        number = 0
        while True:
            yield simulation.env.background(period)
            work(number)
            number += 1

    simulation.env.process(turns())


def mixed(simulation: Simulation, number: int) -> None:
    """Have some pages of each VM share frames with others', and now and then move those frames."""
    for machine in simulation.vms:
        if machine.able:
            for page in data_of(machine)[number % 7 :: 11]:
                share_with(simulation, machine, page)
    host = simulation.host
    if number % 3 == 0 and len(host.shared):
        (new,) = host.take(HOST, 1, State.HOST).tolist()
        old = next(iter(host.shared))
        host.move_shared(simulation.hardware.memory, old, new)
        host.give(np.array([old]))
    check_host(simulation, "a turn")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("page", ["4K", pytest.param("2M", marks=pytest.mark.slow)])
def test_programs_in_several_vms_of_a_mode_cannot_tell(mode: str, page: str) -> None:
    keys = {} if page == "4K" else {"guest_page": "2M"} | ({"host_page": "2M"} if mode in ("ept", "npt") else {})
    tables = [vm(name, mode=mode, memory="4MiB" if page == "4K" else "16MiB", **keys) for name in "abc"]
    what = scenario(*tables, memory="64MiB", cores=2, what_if=True)
    streams = [Script(STEPS * 4) for _ in tables]
    quiet, calm = run(what, streams)
    simulation = Simulation(what, streams=streams, observers=[check_invariants])
    during(simulation, 50_021, lambda number: mixed(simulation, number))
    outcome = simulation.run()
    assert outcome.ending is None
    assert time_adds_up(outcome)
    for before, after, machine in zip(calm.vms, outcome.vms, simulation.vms, strict=True):
        assert machine.pages
        assert after.counters["accesses"] == before.counters["accesses"]
        broken = machine.pages.broken if mode == "native" else 0  # faults of its kernel, some of which a fork makes too
        assert before.guest_faults <= after.guest_faults <= before.guest_faults + broken
        if page == "4K" or mode != "native":  # whose large pages are left whole
            assert machine.pages.merged > 20
            assert machine.pages.broken > 5
    assert simulation.host.shared.most > 1 or page != "4K"
    assert len(simulation.host.shared) == 0
    assert simulation.host.free == quiet.host.free


def test_vms_of_all_modes_and_programs_share_the_same_frames() -> None:
    """Pages of a hypervisor's guests and of programs beside them are pages of processes alike."""
    tables = [vm(f"{mode}-vm", mode=mode) for mode in MODES if mode != "npt"]
    what = scenario(*tables, memory="64MiB", cores=3, what_if=True)
    streams = [Script(STEPS * 3) for _ in tables]
    simulation = Simulation(what, streams=streams, observers=[check_invariants])
    kinds: set[tuple[bool, bool]] = set()

    def turn(number: int) -> None:
        mixed(simulation, number)
        for pfn in simulation.host.shared:
            owners = {memory.owner for memory, _ in simulation.host.shared.users(pfn)}
            kinds.add((len(owners) > 1, 0 in owners))  # the program is the first

    during(simulation, 50_021, turn)
    assert simulation.run().ending is None
    assert (True, True) in kinds
    assert len(simulation.host.shared) == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_page_that_has_come_to_share_a_frame_since_it_was_chosen_is_not_taken(mode: str) -> None:
    """Who takes pages may wait between choosing them and taking them, and ksmd merges one meanwhile."""
    simulation = Simulation(scenario(vm(mode=mode, populate="lazy"), memory="32MiB", what_if=True))
    seen: list[int] = []

    def merge_and_take(number: int) -> None:
        (machine,) = simulation.vms
        if machine.able and machine.pages and len(chosen := data_of(machine)) > 4 and not seen:
            page = chosen[2]
            machine.forget(machine.pages.share(page, frame_of(machine, page)))
            machine.forget(machine.pages.take_each(np.array([page])))
            seen.append(len(simulation.host.shared))
            check_host(simulation, "a turn")

    during(simulation, 20_011, merge_and_take)
    assert simulation.run().ending is None
    assert seen == [1]


def once(simulation: Simulation, cycle: int, work: Callable[[], None]) -> None:
    """Do work when the clock has come to a cycle."""

    def wait() -> Generator[simpy.Event, Any, None]:
        yield simulation.env.timeout(cycle)
        work()

    simulation.env.process(wait())


@pytest.mark.parametrize("kind", [READ, WRITE])
def test_a_write_to_a_shared_page_is_a_violation_with_a_copy(kind: int) -> None:
    """Worked out from the CPU's costs: exit, walk, a page, a copy of it, the entry, the reverse map, resume."""
    steps = [*touches(range(4), WRITE), ("compute", 40_000_000), *touches(range(4), kind)]
    what = scenario(vm())
    _, calm = run(what, [Script(steps)])
    simulation = Simulation(what, streams=[Script(steps)], observers=[check_invariants])
    machine = simulation.vms[0]

    def share_all() -> None:
        pages = [gfn for gfn in data_of(machine) if machine.kernel.frames.frames["rmap"][gfn]][:4]
        assert len(pages) == 4
        for gfn in pages:
            machine.pages.share(gfn, frame_of(machine, gfn))
        machine.drop(Flush(nested=True))

    once(simulation, 20_000_000, share_all)
    outcome = simulation.run()
    cost = what.cpu.cost
    each = cost.vm_exit + cost.violation_walk + cost.violation_entry + cost.violation_rmap + cost.violation_resume
    if kind == WRITE:
        each += cost.violation_pool + cost.copy_page
    before, after = calm.vms[0].figures, outcome.vms[0].figures
    exits, cycles = (
        after.named(name)["EPT_VIOLATION"] - before.named(name)["EPT_VIOLATION"] for name in ("exits", "exit_cycles")
    )
    assert (exits, cycles) == (4, 4 * each)
    assert machine.pages
    assert machine.pages.broken == (4 if kind == WRITE else 0)


def test_each_sharer_that_writes_gets_a_copy_and_the_last_frees_the_frame() -> None:
    """Three pages share one frame, which saves two; each write takes a frame, and the third frees the shared one."""
    simulation = Simulation(scenario(vm("a", populate="eager"), vm("b", populate="eager")))
    for machine in simulation.vms:
        machine.populate()
    first, second = simulation.vms
    one, two = data_of(first)[:2]
    other = data_of(second)[0]
    host, pfn = simulation.host, frame_of(first, one)
    free = host.free
    for machine, number in ((first, one), (first, two), (second, other)):
        assert machine.pages
        machine.forget(machine.pages.share(number, pfn))
        check_host(simulation, "a share")
    assert host.free == free + 2
    assert host.shared.users(pfn) == [(first.pages, one), (first.pages, two), (second.pages, other)]
    for left, (machine, number) in zip((2, 1, 0), ((first, two), (second, other), (first, one)), strict=True):
        assert isinstance(machine.pages, GuestMemory)
        assert machine.pool
        (new,) = machine._take(1, State.POOL)
        machine.pages.unshare(machine.vcpu, number, new)
        check_host(simulation, "a copy")
        assert len(host.shared.users(pfn)) == left
        assert machine.pages.frame_of(number) == new
    assert host.free == free  # three pages have a frame each again


def test_what_cannot_be_shared_is_refused_or_left() -> None:
    simulation = Simulation(scenario(vm("a", populate="eager"), vm("b", populate="eager")))
    for machine in simulation.vms:
        machine.populate()
    first, second = simulation.vms
    assert isinstance(first.pages, GuestMemory)
    assert isinstance(second.pages, GuestMemory)
    page, other = data_of(first)[0], data_of(second)[0]
    with pytest.raises(ValueError, match="cannot come to share"):
        first.pages.share(page, frame_of(second, other))  # which is no shared frame
    first.pages.share(page, frame_of(first, page))
    with pytest.raises(ValueError, match="cannot come to share"):
        first.pages.share(page, frame_of(first, page))  # it does already
    root = second.kernel.root >> 12
    with pytest.raises(ValueError, match="does not hold"):
        second.pages.share(root, frame_of(first, page))  # the words of a page table are not those of data
    pfn = np.array([frame_of(second, other)])
    simulation.host.pin(pfn)
    second.pages.share(other, frame_of(first, page))
    assert not second.pages.backing[other] & SHARED


def writable(machine: Any, number: int) -> None:
    """Give back the right to write in every table that a processor reaches a page through."""
    monitor, memory = machine.monitor, machine.parts.hardware.memory
    if machine.spec.mode == "native":
        roots = [process.space.root for process in machine.kernel.processes.values()]
        places = [
            table + 8 * index
            for root in roots
            for table in tables_below(memory, root, 4)
            for index in np.flatnonzero((memory[table >> 3 : (table >> 3) + 512] >> 12) == number).tolist()
        ]
        memory[places[0] >> 3] |= 2
    elif machine.spec.mode in ("shadow", "agile", "vkernel"):
        pfn, found = machine.slot.frame_of(number), 0
        roots = [*monitor.maps.values()] if machine.spec.mode == "vkernel" else [*monitor.pages["hpa"]]
        for root in roots:
            for table in tables_below(memory, int(root), 4) if machine.spec.mode == "vkernel" else [int(root)]:
                words = memory[table >> 3 : (table >> 3) + 512]
                for index in np.flatnonzero((words & 0xFFFFFFFFF000) >> 12 == pfn).tolist():
                    words[index] |= 2
                    found += 1
        if not found:
            raise StopIteration
    else:
        place, _ = find_entry(memory, *monitor.memory_root, 1, number << 12)
        if not memory[place >> 3]:
            raise StopIteration
        memory[place >> 3] |= 2


def tables_below(memory: np.ndarray, table: int, level: int) -> list[int]:
    """Return the hpas of the tables of level 1 below one."""
    if level == 1:
        return [table]
    entries = memory[table >> 3 : (table >> 3) + 512]
    below = [int(entry) & 0xFFFFFFFFF000 for entry in entries if entry & 1 and not entry & 1 << 7]
    return [leaf for each in below for leaf in tables_below(memory, each, level - 1)]


def lost(machine: Any, number: int) -> None:
    """Have the host lose one of the pages that lie in a frame."""
    pfn = frame_of(machine, number)
    machine.parts.host.shared.remove(pfn, machine.pages, number if machine.slot else -1)


def unknown(machine: Any, number: int) -> None:
    """Have a page lie in a shared frame that others have: its host knows of a third."""
    machine.parts.host.shared.add(frame_of(machine, number), machine.pages, number + 1)


class SpoiltError(Exception):
    """The host is spoilt: the run ends here."""


PLANTED = [
    *((mode, writable, "write|rights|differ|read-only|writable") for mode in MODES),
    *((mode, lost, "shar|not its own") for mode in MODES),
    *((mode, unknown, "shar") for mode in MODES if mode != "native"),
]


@pytest.mark.parametrize(("mode", "plant", "said"), PLANTED)
def test_the_checker_sees_what_must_not_be(mode: str, plant: Callable[[Any, int], None], said: str) -> None:
    done: list[int] = []

    def look(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)
        machine = simulation.vms[0]
        if moment is not Moment.SLICE_ENDED or not machine.able or machine.monitor.stale(0):
            return
        number = next(iter(simulation.host.shared.of(0)), (-1, -1))
        if number[0] < 0:
            for page in data_of(machine)[-8:]:
                machine.forget(machine.pages.share(page, frame_of(machine, page)))
            return
        try:
            plant(machine, number[1] if machine.slot else number[0])
        except StopIteration:  # nothing maps it yet
            return
        done.append(1)
        with pytest.raises(BrokenInvariant, match=said):
            check_invariants(moment, simulation, whose)
        raise SpoiltError

    work = {"kind": "uniform", "footprint": 40 * PAGE, "accesses": 12000, "writes": 0.0}
    what = scenario(vm(mode=mode) | {"workload": work}, memory="32MiB", quantum="11us", what_if=True)
    with pytest.raises(SpoiltError):
        Simulation(what, observers=[look]).run()
    assert done
