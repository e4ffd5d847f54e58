"""Does all that a kernel does to page tables go through its Mmu, entry by entry?"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests.guest.test_processes import PROGRAMS
from tests.oracle.guest import Guest
from tests.simulation.small import BASE, PAGE, READ, WRITE, Script, run, scenario, vm
from vmsim.contracts import Moment
from vmsim.engine import build as wiring
from vmsim.engine.simulation import Simulation
from vmsim.guest.mmu import HardwareMmu


class TrappingMmu(HardwareMmu):
    """Hardware's, with a note of every load and store, and a copy of the tables that only stores change."""

    traps = True
    loads_trap = True
    unseen = False
    known = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.loads: list[int] = []
        self.stores: list[tuple[int, int]] = []
        self.forgets: list[tuple[int, int]] = []  # (INVLPGs, bytes apart) of each range; (0, 0): everything
        self.words: dict[int, int] = {}

    def read(self, vcpu: Any, places: np.ndarray) -> Generator[Any, Any, np.ndarray]:
        self.loads += places.tolist()
        return (yield from super().read(vcpu, places))

    def write(self, vcpu: Any, places: np.ndarray, values: np.ndarray) -> Generator[Any, Any, None]:
        self.stores += zip(places.tolist(), values.tolist(), strict=True)
        self.words |= zip(places.tolist(), values.tolist(), strict=True)
        yield from super().write(vcpu, places, values)

    def clear(self, vcpu: Any, gpa: int, order: int, *, table: bool) -> Generator[Any, Any, None]:
        for place in [place for place in self.words if gpa <= place < gpa + (PAGE << order)]:
            del self.words[place]
        yield from super().clear(vcpu, gpa, order, table=table)

    def invalidate(self, vcpu: Any, first: int, last: int, *, order: int = 0) -> Generator[Any, Any, None]:
        self.forgets.append((-(-(last + 1 - first) // (PAGE << order)), PAGE << order))
        yield from super().invalidate(vcpu, first, last, order=order)

    def flush(self, vcpu: Any) -> Generator[Any, Any, None]:
        self.forgets.append((0, 0))
        yield from super().flush(vcpu)


FLAGS = 1 << 5 | 1 << 6  # accessed and dirty, which the processor sets


@pytest.fixture
def trapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "HardwareMmu", TrappingMmu)


def after(steps: list[Any], **keys: Any) -> tuple[TrappingMmu, Any]:
    machines: list[Any] = []

    def check(moment: Moment, simulation: Simulation, whose: Any) -> None:
        if moment is Moment.VM_FINISHED:
            machines.append(simulation.vms[0].kernel)
            mmu = machines[0].mmu
            assert isinstance(mmu, TrappingMmu)
            memory = simulation.hardware.memory
            for place, value in mmu.words.items():  # natively a gpa is an hpa
                assert memory[place >> 3] & ~FLAGS == value & ~FLAGS

    what = scenario(vm(**{"memory": "8MiB", "mode": "native", **keys}), memory="256MiB")
    run(what, [Script(steps)], check=check)
    return machines[0].mmu, machines[0]


@pytest.mark.usefixtures("trapping")
@settings(max_examples=40)
@given(steps=PROGRAMS)
def test_the_tables_are_what_stores_through_the_mmu_have_made_them(steps: list[Any]) -> None:
    """The account of pages holds there too, so a kernel that may trap does what one that may not does."""
    guest = Guest().run(steps)
    mmu, kernel = after(steps)
    assert kernel.faults == guest.faults
    for pid, space in guest.spaces.items():
        for number in space.pages:
            table, gva = kernel.processes[pid].space.root, BASE + number * PAGE
            for level in range(4, 0, -1):
                entry = mmu.words[table + 8 * (gva >> 3 + 9 * level & 511)]
                table = entry & ~0xFFF & (1 << 52) - 1
            assert entry != 0


@pytest.mark.usefixtures("trapping")
@pytest.mark.parametrize(("page", "loads", "stores"), [(0, 2, 4), (1, 4, 1), (512, 4, 2)])
def test_a_fault_loads_its_way_down_and_stores_what_is_missing(page: int, loads: int, stores: int) -> None:
    """The first makes three tables, from the top down; one beside it none, one in the next 2 MiB one."""
    steps = [("touch", 0, READ), ("touch", page, WRITE)] if page else [("touch", 0, READ)]
    mmu, _ = after(steps)
    if page:
        before, _ = after(steps[:1])
        mmu.loads, mmu.stores = mmu.loads[len(before.loads) :], mmu.stores[len(before.stores) :]
    assert (len(mmu.loads), len(mmu.stores)) == (loads, stores)
    for (_, link), (place, _) in zip(mmu.stores, mmu.stores[1:], strict=False):
        assert place >> 12 == link >> 12


@pytest.mark.usefixtures("trapping")
def test_a_copy_clears_the_entry_before_it_sets_the_new_one() -> None:
    mmu, kernel = after([("touch", 0, WRITE), ("fork", 2), ("touch", 0, WRITE)])
    (first, nothing), (second, value) = mmu.stores[-2:]
    assert first == second
    assert nothing == 0
    assert value & 2
    assert kernel.copies == 1


@pytest.mark.usefixtures("trapping")
def test_an_unmap_loads_all_of_its_range_and_stores_only_what_was_there() -> None:
    before, _ = after([("touch", 0, WRITE)])
    mmu, _ = after([("touch", 0, WRITE), ("unmap", 0, 100)])
    assert len(mmu.loads) - len(before.loads) >= 100
    assert len(mmu.stores) - len(before.stores) == 1
    assert mmu.stores[-1][1] == 0


@pytest.mark.usefixtures("trapping")
@pytest.mark.parametrize(("guest_levels", "upper"), [(4, 1 + 1 + 3), (5, 1 + 1 + 1 + 3)])
def test_a_fork_loads_each_entry_in_use_once_and_each_of_the_childs_directory(guest_levels: int, upper: int) -> None:
    """7 pages in 3 page tables: the parent's entries above them, and the 7; of the child, where its 3 tables go.

    The first of the child's is the root's, which is found absent; the other two are of the directory that was made.
    """
    pages = [0, 1, 511, 512, 513, 1024, 1535]
    before, _ = after([("touch", page, WRITE) for page in pages], guest_levels=guest_levels)
    mmu, _ = after([*(("touch", page, WRITE) for page in pages), ("fork", 2)], guest_levels=guest_levels)
    loads = mmu.loads[len(before.loads) :]
    assert len(loads) == upper + 7 + 1 + 2
    assert len({*loads}) == len(loads)


@pytest.mark.usefixtures("trapping")
def test_an_exit_loads_each_entry_in_use_to_clear_it_and_each_of_a_table_to_free_it() -> None:
    """A child's 7 pages in 3 tables: 1 + 1 + 3 entries above, the 7, then the 5 above again, to free the tables."""
    steps = [("touch", page, WRITE) for page in (0, 1, 511, 512, 513, 1024, 1535)] + [("fork", 2)]
    before, _ = after(steps)
    mmu, _ = after([*steps, ("exit", 2)])
    assert len(mmu.loads) - len(before.loads) == 1 + 1 + 3 + 7 + 1 + 1 + 3


@pytest.mark.usefixtures("trapping")
def test_an_unmap_loads_its_upper_entries_once() -> None:
    """A page, 512 and one: the last of a table, all of the next, and where there is no third."""
    before, _ = after([("touch", 511, WRITE), ("touch", 512, WRITE)])
    mmu, _ = after([("touch", 511, WRITE), ("touch", 512, WRITE), ("unmap", 511, 514)])
    assert len(mmu.loads) - len(before.loads) == 1 + 1 + 3 + 1 + 512


LOW = 0x1000_0000  # where a guest of any number of levels has its programs


def left_by(mmu: type[HardwareMmu], steps: list[Any], keys: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a program leaves where the kernel reaches its tables by such an MMU: memory, frames, who shares."""
    left: list[Any] = []

    def check(moment: Moment, simulation: Simulation, whose: Any) -> None:
        if moment is Moment.VM_FINISHED:
            kernel = simulation.vms[0].kernel
            assert type(kernel.mmu) is mmu
            frames, zone = kernel.frames.frames, kernel.frames.zone
            counts = kernel.sharing.entries(np.arange(len(frames)))
            left.extend([simulation.hardware.memory[: len(frames) << 9].copy(), frames.copy(), zone.copy(), counts])
            left.append(kernel.frames.ready.held())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "HardwareMmu", mmu)
        table = vm(memory="8MiB", mode="native", workload={"base": LOW}, **keys)
        _, outcome = run(scenario(table, memory="16MiB", what_if=True), [Script(steps, base=LOW)], check=check)
    return *left, outcome.vms[0].cycles


@pytest.mark.parametrize(
    "keys", [{}, {"guest_page": "2M"}, {"guest_levels": 5}, {"guest_levels": 3}, {"guest_levels": 2}]
)
@settings(max_examples=15)
@given(steps=PROGRAMS)
def test_lists_edited_by_compiled_code_are_left_as_entry_by_entry(keys: dict[str, Any], steps: list[Any]) -> None:
    """Whether stores trap says who edits, not what comes of it: tables, frames, reverse maps, sharing and cycles."""
    by_entry, by_list = (left_by(mmu, steps, keys) for mmu in (TrappingMmu, HardwareMmu))
    for one, other in zip(by_entry[:-1], by_list[:-1], strict=True):
        assert np.array_equal(one, other)
    assert by_entry[-1] == by_list[-1]


EVERYTHING = (0, 0)


@pytest.mark.usefixtures("trapping")
@pytest.mark.parametrize(
    ("what", "page", "pages", "forgets"),
    [
        ("unmap", "4K", range(33), (33, PAGE)),
        ("unmap", "4K", range(34), EVERYTHING),
        ("unmap", "4K", [5, 15], (11, PAGE)),  # from the first entry that was there to the last
        ("unmap", "2M", [0], (1, 2 << 20)),
        ("unmap", "2M", range(0, 33 * 512, 512), (33, 2 << 20)),
        ("unmap", "2M", range(0, 34 * 512, 512), EVERYTHING),
        ("protect", "4K", [5, 15], (11, PAGE)),
        ("protect", "2M", [0, 512], (2, 2 << 20)),
        ("discard", "2M", [512], (1, 2 << 20)),
    ],
)
def test_what_is_forgotten_is_counted_in_strides_of_the_page_as_linux_does(
    what: str, page: str, pages: Any, forgets: tuple[int, int]
) -> None:
    """Up to tlb_single_page_flush_ceiling (33) INVLPGs, over what the mmu_gather saw, else a load of CR3."""
    steps = [("touch", number, WRITE) for number in pages]
    operation = [what, 0, 34 * 512]
    keys = {"guest_page": page, "memory": "128MiB"}
    before, _ = after(steps, **keys)
    mmu, _ = after([*steps, tuple(operation)], **keys)
    assert mmu.forgets[len(before.forgets) :] == [forgets]


@pytest.mark.usefixtures("trapping")
def test_sizes_mixed_are_forgotten_in_strides_of_the_smallest() -> None:
    """A page of 4 KiB, where a part of a large one was unmapped, and one of 2 MiB: 513 strides are too many."""
    steps = [("touch", 0, WRITE), ("touch", 512, WRITE), ("unmap", 0, 511)]
    before, _ = after(steps, guest_page="2M")
    mmu, _ = after([*steps, ("unmap", 0, 1024)], guest_page="2M")
    assert mmu.forgets[len(before.forgets) :] == [EVERYTHING]
    mmu, _ = after([*steps, ("unmap", 512, 512)], guest_page="2M")
    assert mmu.forgets[len(before.forgets) :] == [(1, 2 << 20)]
