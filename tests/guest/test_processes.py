"""After any program of processes, are the tables what a plain account of their pages says?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.bits import ADDRESS, PS, index, span
from tests.oracle.guest import Guest
from tests.oracle.tables import Words, translate_nested
from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, run, scenario, touches, vm
from tests.simulation.test_contract import Words as Memory
from vmsim.contracts import Moment
from vmsim.engine.check.host import check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.workloads import Op

PRESENT, RW, ACCESSED, DIRTY = 1, 2, 1 << 5, 1 << 6
PIDS = (1, 2, 3, 4)
PAGES = st.sampled_from([*range(6), *range(508, 516)])  # on both sides of where one table ends
RANGES = PAGES, st.integers(1, 8)
RIGHTS = st.sampled_from([0, 1, 3])
STEPS = st.one_of(
    st.tuples(st.just("touch"), PAGES, st.sampled_from([READ, WRITE])),
    st.tuples(st.just("touch"), PAGES, st.sampled_from([READ, WRITE])),
    st.tuples(st.just("map"), *RANGES, RIGHTS),
    st.tuples(st.just("unmap"), *RANGES),
    st.tuples(st.just("protect"), *RANGES, RIGHTS),
    st.tuples(st.just("brk"), PAGES),
    st.tuples(st.just("io"), *RANGES),
    st.tuples(st.just("move"), *RANGES, PAGES),
    st.tuples(st.just("discard"), *RANGES, st.sampled_from([0, 1])),
    st.tuples(st.just("populate"), *RANGES),
    st.tuples(st.just("advise"), *RANGES, st.sampled_from([10, 11, 18, 19])),
    st.tuples(st.just("fork"), st.sampled_from(PIDS)),
    st.tuples(st.just("share"), st.sampled_from(PIDS)),
    *(st.tuples(st.just(what), st.sampled_from(PIDS)) for what in ("switch", "switch", "by", "exit", "exec")),
)
PROGRAMS = st.lists(STEPS, max_size=40).map(lambda steps: [("touch", 0, WRITE), *steps, ("touch", 1, READ)])


def finished(steps: list[Any], look: Callable[[Simulation], None], zeros: bool = False, **keys: Any) -> Any:
    """Run a program, every invariant checked, and look at the host when it has come to its end."""
    looked = []

    def check(moment: Moment, simulation: Simulation, whose: Any) -> None:
        check_invariants(moment, simulation, whose)
        if moment is Moment.VM_FINISHED:
            look(simulation)
            looked.append(moment)

    what = scenario(vm(**{"memory": "8MiB", **keys}), memory="64MiB")
    _, outcome = run(what, [Script(steps, from_start=zeros)], check=check)
    assert outcome.ending is None
    assert len(looked) == 1
    return outcome.vms[0]


def leaf(simulation: Simulation, root: int, gva: int) -> tuple[int, int]:
    """Return (entry, level) that translates `gva` in a guest's tables; 0 where there is none."""
    words: Words = Memory(simulation.hardware.memory)
    *nested, kept = simulation.vms[0].memory_map
    for level in range(4, 0, -1):
        place = root + 8 * index(gva, level)
        if len(kept):
            found = translate_nested(words, *nested, place, kept)
            assert found
            place = found[0]
        entry = words.get(place, 0)
        if entry == 0 or entry & PS or level == 1:
            return entry, level
        root = entry & ADDRESS
    raise AssertionError


def contents_agree(simulation: Simulation, guest: Guest) -> None:
    """Pages that should have one content have one frame, others have others."""
    frames, contents = defaultdict(set), defaultdict(set)
    for pid, space in guest.spaces.items():
        root = simulation.vms[0].kernel.processes[pid].space.root
        for number, page in space.pages.items():
            gva = BASE + number * PAGE
            entry, level = leaf(simulation, root, gva)
            frame = (entry & ADDRESS) // span(level) * span(level) + gva % span(level)
            frames[page.content].add(frame)
            contents[frame].add(page.content)
            assert entry & PRESENT == page.present
    assert all(len(each) == 1 for each in (*frames.values(), *contents.values()))


MODES = ["native", "ept", "shadow", "vkernel"]


@pytest.mark.parametrize("pcid", [True, False])
@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40)
@given(steps=PROGRAMS, zeros=st.booleans())
def test_entries_are_what_the_account_of_pages_says(mode: str, pcid: bool, steps: list[Any], zeros: bool) -> None:
    guest = Guest(zeros=zeros).run(steps)

    def look(simulation: Simulation) -> None:
        kernel = simulation.vms[0].kernel
        assert sorted(kernel.processes) == sorted(guest.spaces)
        assert kernel.current[0].pid == guest.current
        for pid, space in guest.spaces.items():
            for number in (*range(15), *range(500, 530)):
                entry, level = leaf(simulation, kernel.processes[pid].space.root, BASE + number * PAGE)
                page = space.pages.get(number)
                assert (entry != 0 and level == 1) == (page is not None)
                if page is not None:
                    bits = PRESENT * page.present, RW * page.writable, ACCESSED * page.accessed, DIRTY * page.dirty
                    assert entry & (PRESENT | (RW | ACCESSED | DIRTY) * page.present) == sum(
                        bits[: 4 if page.present else 1]
                    )
        contents_agree(simulation, guest)

    assert finished(steps, look, zeros, mode=mode, pcid=pcid).guest_faults == guest.faults


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=25)
@given(steps=PROGRAMS, zeros=st.booleans())
def test_large_pages_hold_what_small_ones_would(mode: str, steps: list[Any], zeros: bool) -> None:
    """What is touched is there, whatever larger page it lies in; and no one writes to what another sees."""
    guest = Guest(zeros=zeros).run(steps)

    def look(simulation: Simulation) -> None:
        kernel = simulation.vms[0].kernel
        for pid, space in guest.spaces.items():
            root = kernel.processes[pid].space.root
            assert all(leaf(simulation, root, BASE + number * PAGE)[0] for number in space.pages)

    finished(steps, look, zeros, mode=mode, guest_page="2M")


@pytest.mark.parametrize("page", ["4K", "2M"])
@pytest.mark.parametrize("mode", MODES)
def test_when_all_but_one_have_exited_only_its_pages_are_left(mode: str, page: str) -> None:
    """Of the children's pages, copies and tables nothing: the invariants say that no frame was lost."""
    steps: list[Any] = [*touches(range(600), WRITE)]
    for child in (2, 3):
        steps += [("fork", child), ("switch", child), *touches(range(0, 600, 7), WRITE), ("touch", 1, READ)]
    steps += [("exit", 2), ("exit", 3), ("touch", 599, WRITE)]

    def look(simulation: Simulation) -> None:
        machine = simulation.vms[0]
        assert [*machine.kernel.processes] == [1]
        states = machine.frames.frames["state"]
        ready = len(machine.frames.ready)
        pages = 600 if page == "4K" else 1024
        assert (states == 3).sum() - ready == pages

    figures = finished(steps, look, mode=mode, guest_page=page)
    assert figures.guest_faults >= 2 * 86


def test_a_child_that_writes_copies_and_its_parent_then_has_the_page_alone() -> None:
    steps = [("touch", 0, WRITE), ("fork", 2), ("switch", 2), ("touch", 0, WRITE), ("switch", 1), ("touch", 0, WRITE)]
    counts = []
    finished(steps, lambda simulation: counts.append(simulation.vms[0].kernel.copies))
    assert counts == [1]


def test_what_a_fork_costs_is_in_the_table_of_costs() -> None:
    """The root and three tables, three pages' entries written twice; then the two writes to a page copy it once."""
    base = [*touches(range(3), WRITE)]
    steps = [*base, ("fork", 2), ("touch", 0, WRITE), ("touch", 1, READ)]
    costs = scenario(vm()).cpu.cost
    without, with_fork = (finished(each, lambda _: None, mode="native").cycles for each in (base, steps))
    fault = costs.fault_delivery + costs.guest_fault
    expected = costs.fork + 4 * (costs.table_page + costs.zero_page) + 3 * costs.fork_page + fault + costs.copy_page
    assert with_fork["guest_fault"] - without["guest_fault"] == expected


@pytest.mark.parametrize(("pcid", "spaces", "flushed"), [(True, 6, False), (True, 7, True), (False, 2, True)])
def test_six_spaces_keep_their_translations_by_pcid_as_linux_has_it(pcid: bool, spaces: int, flushed: bool) -> None:
    """A page for each process, and then twice round: with PCIDs for all of them nothing is walked again."""
    turn = [step for pid in range(1, spaces + 1) for step in (("switch", pid), ("touch", pid, WRITE))]
    misses = [
        finished(turn * times, lambda _: None, mode="ept", pcid=pcid).counters["l2_tlb_misses"] for times in (2, 3)
    ]
    assert misses[1] - misses[0] == (spaces if flushed else 0)


def test_what_is_unmapped_elsewhere_is_not_found_in_the_tlb_on_return() -> None:
    """Both processes have a PCID of their own; the second loses a page while the first runs."""
    steps = [("switch", 2), ("touch", 3, WRITE), ("switch", 1), ("by", 2), ("unmap", 3, 1), ("touch", 0, READ)]
    steps += [("switch", 2), ("touch", 3, READ)]
    assert finished(steps, lambda _: None).guest_faults == 3


def test_an_operation_of_every_kind_is_tried() -> None:
    """Or the programs above would not be any program."""
    files = {"open_file", "read_file", "write_file", "drop_file", "sync_file"}  # test_page_cache.py
    assert {op.name.lower() for op in Op} - {"compute", "thread", "barrier"} - files == {
        "map",
        "advise",
        "unmap",
        "protect",
        "brk",
        "fork",
        "exec",
        "exit",
        "switch",
        "io",
        "move",
        "discard",
        "populate",
        "share",
    }


def test_what_madvise_says_of_pages_outlives_a_time_without_rights() -> None:
    """By hand: two pages written; the child lacks the one that is kept from it, and finds the other."""
    steps = [("map", 0, 2), *touches([0, 1], WRITE), ("advise", 0, 1, 10), ("protect", 0, 1, 0), ("protect", 0, 1, 3)]
    steps += [("fork", 2), ("switch", 2), *touches([0, 1], READ)]
    assert finished(steps, lambda _: None).guest_faults == 3 == Guest().run(steps).faults


EVERY_MODE = ["native", "ept", "npt", "shadow", "agile", "paired", "vkernel"]


@pytest.mark.parametrize("page", ["4K", "2M"])
@pytest.mark.parametrize("mode", EVERY_MODE)
def test_moved_shared_and_populated_pages_do_not_fault_and_discarded_ones_do(mode: str, page: str) -> None:
    """By hand, in pages of 4 KiB: 10 written, and none for the move; 10 for the discard, none for the lazy one.

    A child of vfork writes what its parent has and one page more, which the parent then has; what mlock maps are
    faults, though the processor raises none. Of 2 MiB one page each: the move by 20 x 4 KiB splits it.
    """
    if (mode, page) == ("paired", "2M"):
        pytest.skip("mode paired has pages of 4 KiB")
    pages, moved = range(10), range(20, 30)
    steps = [("map", 0, 10), *touches(pages, WRITE), ("move", 0, 10, 20), *touches(moved, WRITE)]
    steps += [("discard", 20, 10), *touches(moved, WRITE), ("discard", 20, 10, 1), *touches(moved, WRITE)]
    steps += [("share", 2), ("switch", 2), *touches([*moved, 31], WRITE), ("exit", 2), ("touch", 31, WRITE)]
    steps += [("map", 40, 5), ("populate", 40, 5), *touches(range(40, 45), WRITE)]
    machine = finished(steps, lambda _: None, mode=mode, guest_page=page)
    assert machine.guest_faults == (10 + 10 + 1 + 5 if page == "4K" else machine.guest_faults)
    assert machine.guest_faults == Guest().run(steps).faults or page == "2M"


@pytest.mark.parametrize("mode", EVERY_MODE)
def test_a_large_page_moved_to_a_place_as_aligned_stays_large(mode: str) -> None:
    if mode == "paired":
        pytest.skip("mode paired has pages of 4 KiB")
    steps = [("touch", 0, WRITE), ("move", 0, 512, 1024), ("touch", 1024 + 511, WRITE)]

    def look(simulation: Simulation) -> None:
        root = simulation.vms[0].kernel.root
        assert leaf(simulation, root, BASE + 1024 * PAGE)[1] == 2
        assert leaf(simulation, root, BASE)[0] == 0

    assert finished(steps, look, mode=mode, guest_page="2M", memory="16MiB").guest_faults == 1


@pytest.mark.parametrize(("mode", "reason"), [("shadow", "INVLPG"), ("vkernel", "INVAL")])
def test_one_large_page_unmapped_is_one_exit_where_invlpg_is(mode: str, reason: str) -> None:
    """Linux gives one INVLPG for 2 MiB, DragonFly one call (pmap_inval_pde)."""
    steps = [("touch", 0, WRITE), ("touch", 512, WRITE)]
    keys = {"mode": mode, "guest_page": "2M", "memory": "16MiB"}
    counts = []
    for more in ([], [("unmap", 512, 512)]):
        _, outcome = run(scenario(vm(**keys), memory="64MiB"), [Script([*steps, *more])])
        counts.append(outcome.vms[0].exits.get(reason, (0, 0))[0])
    assert counts[1] - counts[0] == 1
