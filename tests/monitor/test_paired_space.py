"""Do KPT and EPT of a process hold the same mappings, whatever was done, and cost what the layout should?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle import tables as plain
from tests.oracle.bits import span
from tests.oracle.paired import PairedOracle, pointer_pages, table_pages
from vmsim.base.clock import Clock
from vmsim.frames.records import State
from vmsim.host.daemons.compaction import Compaction
from vmsim.host.memory import HostMemory
from vmsim.machine.formats import ACCESSED, DIRTY, EPT, EPT_ACCESSED, EPT_DIRTY, EPT_READ, NPT
from vmsim.machine.memory import physical_memory
from vmsim.monitor.paired.check import difference, frames_of_tables
from vmsim.monitor.paired.layout import PairedHost, figures
from vmsim.monitor.paired.space import PairedSpace, limit_of
from vmsim.scenario import Marks
from vmsim.scenario.cpu import CONFIDENCES
from vmsim.scenario.cpu_files import load_cpu
from vmsim.tables.edit import BLOCKED, MAPPED

FRAMES = 1 << 12
LAYOUTS = ["contiguous", "pointer", "separate", "shared"]
TWO_TABLES = LAYOUTS[:3]
REGION = 1 << 40
WRITE, LARGE = 1 << 1, 1 << 7

CPU = load_cpu("yardstick")


class World:
    """A host and one process on it, with the oracle's view beside it."""

    def __init__(self, layout: Any, *, guest: bool, levels: int = 4, frames: int = FRAMES) -> None:
        self.host = HostMemory(Clock(), frames, Marks(0, 0, 0))
        self.memory = physical_memory(frames)
        self.shared = PairedHost(
            self.memory, self.host, CPU, compaction=Compaction(self.host), pointers=layout == "pointer"
        )
        self.kernel = self.host.size - self.host.free
        self.layout = layout
        form = NPT if layout == "shared" else EPT(ad_bits=True)
        self.space = PairedSpace(self.shared, form, owner=0, levels=levels, layout=layout, guest=guest)
        self.oracle = PairedOracle(levels)
        self.space.install(self.table())

    def table(self) -> tuple[int, int]:
        pair = self.shared.take(0, self.layout, guest=self.space.guest, work=self.space.work)
        assert pair is not None
        return pair

    def map(self, address: int, level: int) -> None:
        missing = self.space.missing(address, level)
        assert (missing >= 0) == self.oracle.room(address, level), hex(address)
        if missing < 0:
            assert missing in (MAPPED, BLOCKED)
            return
        frame = self.host.take_block(0, 9 * (level - 1), State.GUEST)
        assert missing == self.oracle.map(address, level, frame)
        self.space.map(address, level, frame, [self.table() for _ in range(missing)])

    def unmap(self, first: int, limit: int) -> None:
        pages = self.space.unmap(first, limit)
        gone = list(zip(pages.frames.tolist(), pages.levels.tolist(), strict=True))
        assert sorted(gone) == self.oracle.unmap(first, limit)
        for frame, level in gone:
            self.host.give_block(frame, 9 * (level - 1))

    def protect(self, first: int, limit: int, write: bool) -> None:
        seen = self.space.protect(first, limit, lambda pages: pages.values & ~WRITE | WRITE * write)
        assert len(seen.starts) == self.oracle.protect(first, limit, write)

    def become_guest(self) -> None:
        if not self.space.guest:
            count = len(self.oracle.tables) if self.layout == "separate" else 0
            frames = self.host.take(0, count, State.TABLE).tolist()
            self.space.become_guest(frames)
            assert not frames

    def unlike(self) -> str | None:
        return difference(self.memory, self.space.kpt, self.space.ept, self.space.levels, self.space.limit)

    def check(self) -> None:
        """Both tables are the oracle's dict, and nobody has more memory than the formula says."""
        words = {index * 8: int(word) for index, word in zip(*self._used(), strict=True)}
        roots = [self.space.kpt, *([self.space.ept] if self.space.ept else [])]
        for root in roots:
            for address, (frame, level, write) in self.oracle.pages.items():
                *_, (at, _, entry) = plain.descend(words, root, self.space.levels, address)
                assert (at, entry >> 12 & (1 << 40) - 1, bool(entry & WRITE)) == (level, frame, write)
            assert self._count(words, root) == len(self.oracle.pages)
        if self.space.ept:
            assert self.unlike() is None
        tables = table_pages(self.layout, len(self.oracle.tables), guest=self.space.guest)
        assert self.host.count(0)["table"] == tables
        assert self.space.tables == len(self.oracle.tables) == len(self.space.halves())
        assert self.kernel == 2 + pointer_pages(self.layout, self.host.size)

    def _used(self) -> tuple[list[int], list[int]]:
        index = np.flatnonzero(self.memory)
        return index.tolist(), self.memory[index].tolist()

    def _count(self, words: dict[int, int], root: int) -> int:
        """Return how many entries map a page, above no table and below the limit."""
        limit = limit_of(self.space.levels)
        tables = frames_of_tables(self.memory, root, self.space.levels, limit)
        pointed = set(tables)
        last = root + 8 * (limit // span(self.space.levels))  # entries from here on are the kernel's
        entries = [
            (place, word) for place, word in words.items() if place >> 12 in pointed and not root + 4096 > place >= last
        ]
        return sum(not (word >> 12 & (1 << 40) - 1 in pointed and not word & LARGE) for _, word in entries)


places = st.integers(0, 1023).map(lambda page: REGION + page * 4096)
ranges = st.tuples(places, st.integers(1, 700)).map(lambda each: (each[0], each[0] + each[1] * 4096))
operations = st.lists(
    st.one_of(
        st.tuples(st.just("map"), places, st.just(1)),
        st.tuples(st.just("map"), st.integers(0, 3).map(lambda number: REGION + number * span(2)), st.just(2)),
        ranges.map(lambda each: ("unmap", *each)),
        st.tuples(ranges, st.booleans()).map(lambda each: ("protect", *each[0], each[1])),
        st.just(("become_guest",)),
    ),
    max_size=25,
)


@pytest.mark.parametrize("guest", [True, False], ids=["vm", "process"])
@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=25, deadline=None)
@given(steps=operations, levels=st.sampled_from([4, 5]))
def test_both_tables_hold_what_was_mapped_after_any_operations(layout, guest, steps, levels) -> None:
    world = World(layout, guest=guest, levels=levels)
    for name, *arguments in steps:
        getattr(world, name)(*arguments)
    world.check()


def built(layout: str) -> World:
    """Return a VM with 40 small pages, some read-only, and a large one."""
    world = World(layout, guest=True)
    for number in range(40):
        world.map(REGION + number * 4096, 1)
    world.map(REGION + span(2), 2)
    world.protect(REGION, REGION + 10 * 4096, False)
    assert not world.space.ept or world.unlike() is None
    return world


def leaf(world: World, root: int, address: int) -> int:
    """Return the index in memory of the entry that maps an address."""
    words = {index * 8: int(word) for index, word in zip(*world._used(), strict=True)}
    *_, (_, place, _) = plain.descend(words, root, 4, address)
    return place // 8


PLANTS: list[tuple[str, Callable[[int], int]]] = [
    ("an entry lost", lambda entry: 0),
    ("another frame", lambda entry: entry + 4096),
    ("a write allowed", lambda entry: entry ^ WRITE),
    ("a right too few", lambda entry: entry & ~0b111),
]


@pytest.mark.parametrize("half", ["kpt", "ept"])
@pytest.mark.parametrize("address", [REGION + 4096, REGION + 39 * 4096, REGION + span(2)])
@pytest.mark.parametrize(("what", "change"), PLANTS, ids=[what for what, _ in PLANTS])
@pytest.mark.parametrize("layout", TWO_TABLES)
def test_any_difference_between_the_halves_is_seen_and_named(layout, what, change, address, half) -> None:
    world = built(layout)
    index = leaf(world, getattr(world.space, half), address)
    world.memory[index] = change(int(world.memory[index]))
    said = world.unlike()
    assert said is not None
    assert f"maps {address:#x}" in said


def test_what_is_above_the_limit_is_the_kpts_alone() -> None:
    world = built("contiguous")
    kpt, ept = (world.memory[root // 8 : root // 8 + 512] for root in (world.space.kpt, world.space.ept))
    assert kpt[256] >> 12 == world.shared.boot[1]  # the kernel's mappings, from the boot tables
    assert kpt[255] >> 12 == world.space.kpt >> 12  # UVPT: the KPT as seen by its process
    assert not ept[255:].any()


def test_boot_tables_have_one_half() -> None:
    """A root and a table of gigabytes: two frames, with the same kernel whatever its processes' layout."""
    host = HostMemory(Clock(), FRAMES, Marks(0, 0, 0))
    PairedHost(physical_memory(FRAMES), host, CPU, compaction=Compaction(host), pointers=False)
    assert host.size - host.free == 2


def test_an_epte_of_a_contiguous_table_is_its_kpte_plus_a_page() -> None:
    world = built("contiguous")
    for number in range(40):
        kpte, epte = (leaf(world, root, REGION + number * 4096) for root in (world.space.kpt, world.space.ept))
        assert epte * 8 == kpte * 8 + 4096


@pytest.mark.parametrize("flag", ["accessed", "dirty"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_flag_is_read_from_either_table(layout, flag) -> None:
    bits = {"accessed": (ACCESSED, EPT_ACCESSED), "dirty": (DIRTY, EPT_DIRTY)}[flag]
    for root, bit in list(zip(("kpt", "ept"), bits, strict=True))[: 1 if layout == "shared" else 2]:
        for address in (REGION + 12 * 4096, REGION + span(2)):
            world = built(layout)
            size = span(2) if address == REGION + span(2) else 4096

            def read(at: int, size: int = size, space: PairedSpace = world.space) -> bool:
                (value,) = space.pages(at, at + size).values.tolist()
                return bool(value & bits[0])

            assert not read(address)
            world.memory[leaf(world, getattr(world.space, root), address)] |= bit
            assert read(address)
            assert not read(REGION + 13 * 4096, 4096)


@pytest.mark.parametrize("layout", TWO_TABLES)
def test_protection_keeps_the_flags_that_hardware_set(layout) -> None:
    world = built(layout)
    index = leaf(world, world.space.ept, REGION + 20 * 4096)
    world.memory[index] |= EPT_ACCESSED | EPT_DIRTY
    world.protect(REGION, REGION + 40 * 4096, False)
    assert int(world.memory[index]) & 0xFFF & ~(EPT_ACCESSED | EPT_DIRTY) & 0b111 == EPT_READ | 1 << 2
    assert world.space.pages(REGION + 20 * 4096, REGION + 21 * 4096).values.tolist()[0] & DIRTY


# One page mapped where all tables are there, and its steps: what the layouts differ in.
STEPS = {
    ("contiguous", True): {"load": 4, "store": 2},
    ("contiguous", False): {"load": 4, "store": 2},
    ("pointer", True): {"load": 4, "store": 2, "dereference": 1},
    ("pointer", False): {"load": 4, "store": 2, "dereference": 1},
    ("separate", True): {"load": 8, "store": 2},
    ("separate", False): {"load": 4, "store": 1},
    ("shared", True): {"load": 4, "store": 1},
    ("shared", False): {"load": 4, "store": 1},
}


@pytest.mark.parametrize(("layout", "guest"), STEPS)
@pytest.mark.parametrize("update", ["map", "unmap", "protect"])
def test_an_update_walks_stores_and_dereferences_as_its_layout_says(layout, guest, update) -> None:
    world = World(layout, guest=guest)
    for number in range(2):
        world.map(REGION + number * 4096, 1)
    before = world.space.work.copy()
    page = REGION + 4096
    {
        "map": lambda: world.map(page + 4096, 1),
        "unmap": lambda: world.unmap(page, page + 4096),
        "protect": lambda: world.protect(page, page + 4096, False),
    }[update]()
    assert dict(world.space.work - before) == {**STEPS[layout, guest], "updates": 1, "walks": 1}


def test_a_process_that_becomes_a_vm_pays_then_only_in_separate_trees() -> None:
    for layout in LAYOUTS:
        world = World(layout, guest=False)
        for number in range(40):
            world.map(REGION + number * 4096, 1)
        before = world.space.work.copy()
        world.become_guest()
        world.check()
        paid = world.space.work - before
        assert bool(paid) == (layout == "separate")
        if paid:
            assert (paid["table"], paid["load"]) == (4, 4 * 512)
            assert paid["store"] == 40 + 3


def test_every_figure_says_where_it_is_from_and_how_sure_it_is() -> None:
    for figure in figures(CPU).values():
        assert figure.source
        assert figure.confidence in CONFIDENCES
