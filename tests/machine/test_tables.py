"""Do kernels' edits of page tables mean what a plain reader of the words finds in them?"""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine.table_world import (
    FRAMES,
    GUEST_FRAMES,
    PAGE,
    TABLE,
    Space,
    buddy_take,
    missing_by_hand,
    space,
)
from tests.machine.worlds import memory
from tests.oracle.bits import PS, span
from tests.oracle.tables import descend, translate, translate_guest
from vmsim.frames import buddy
from vmsim.frames.records import State
from vmsim.machine.memory import clear_frame, find_entry
from vmsim.tables.backing import IDENTITY, UNBACKED, fill_backing, host_address, make_backing
from vmsim.tables.edit import (
    BLOCKED,
    NOWHERE,
    load_entries,
    map_page,
    map_pages,
    missing_tables,
    populate,
    store_entries,
)
from vmsim.tables.edit import translate as walked
from vmsim.tables.listing import list_tables, scan_entries, walk_entries

MAPPINGS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 511), st.integers(1, 8), st.sampled_from([1, 1, 2])),
    min_size=1,
    max_size=8,
)
PLACES = [0, 0x20_0000, 0x4000_0000, 0x80_0000_0000, 0x7FFF_FFE0_0000, 0x7FC0_0000_0000]


@pytest.mark.parametrize("nested", [False, True], ids=["native", "nested"])
@given(mappings=MAPPINGS, seed=st.integers(0, 1 << 16))
def test_what_is_mapped_and_unmapped_is_what_the_plain_reader_finds(nested, mappings, seed):
    random = Random(seed)
    with space(nested) as there:
        model: dict[int, tuple[int, int]] = {}  # gva of a page: its frame, leaf level
        probes = set()
        large_pages_left = 3
        for slot, first, count, leaf in mappings:
            gva = (PLACES[slot] + first * span(leaf)) % (1 << 47)
            if leaf == 2:
                gva = gva // span(2) * span(2)
            gva_end = min(gva + count * span(leaf), 1 << 47)
            for start in range(gva, gva_end, span(leaf)):
                probes.add(start)
                expected = missing_by_hand(there, start, leaf)
                assert there.missing(start, leaf) == expected
                if expected < 0:
                    continue
                if large_pages_left == 0 and leaf == 2:
                    continue
                large_pages_left -= leaf == 2
                frames = there.take(1, 9 * (leaf - 1))
                tables = there.take(expected)
                if expected == 0 and random.random() < 0.5:
                    done = map_page(memory(), there.frames, there.root, 4, leaf, there.backing, start, frames[0], PAGE)
                    assert done == 0
                else:
                    assert there.map(start, leaf, frames, tables) == expected
                model[start] = int(frames[0]), leaf
                assert (there.frames["state"][tables] == State.TABLE).all()
                assert there.frames["rmap"][frames[0]] == there.walk(start)[1]
        for gva in probes:
            check(there, model, gva + 0x123)
        tables = {there.table_of(gva, level) for gva in model for level in range(model[gva][1], 4)}
        places, roots = np.empty(40, np.int64), np.empty(40, np.int64)
        count = list_tables(memory(), there.root, 4, there.backing, 1 << 48, places, roots)
        assert sorted(roots[:count].tolist()) == sorted(tables)
        assert {there.frames["rmap"][table >> 12] for table in tables} == set(places[:count].tolist())
        # look through some range, and unmap what lies in it
        low, high = sorted(random.choice(sorted(probes)) for _ in range(2))
        inside = [gva for gva in sorted(model) if gva + span(model[gva][1]) > low and gva < high]
        assert scan_and_clear(there, low, high) == [(gva, *model.pop(gva)) for gva in inside]
        for gva in probes:
            check(there, model, gva)


def scan_and_clear(there: Space, first: int, limit: int) -> list[tuple[int, int, int]]:
    """Clear what maps a page of a range, found a table at a time; return (gva, frame, leaf level) of each."""
    found, address = [], first
    while address < limit:
        places, values, starts, levels = (np.empty(600, np.int64) for _ in range(4))
        address, count = scan_entries(
            memory(), there.root, 4, there.backing, first, address, limit, False, places, values, starts, levels
        )
        loaded = np.empty(count, np.int64)
        load_entries(memory(), there.backing, places[:count], loaded, 9)
        assert loaded.tolist() == values[:count].tolist()
        assert (loaded != 0).all()
        pages = np.flatnonzero(levels[:count])
        found += [(int(starts[n]), int(values[n] >> 12) & (1 << 40) - 1, int(levels[n])) for n in pages]
        store_entries(memory(), there.backing, places[pages], np.zeros(len(pages), np.int64), 9)
    return found


def test_a_scan_of_a_region_loads_its_absent_entries_too() -> None:
    """One of each level above, 512 of the page table, and the one after it, which has no table to look at."""
    with space(nested=False) as there:
        there.map(0x20_0000, 1, there.take(1), there.take(3))
        columns = [np.empty(600, np.int64) for _ in range(4)]
        end, count = scan_entries(memory(), there.root, 4, IDENTITY, 0x20_0000, 0x20_0000, 0x60_0000, True, *columns)
        assert (end, count) == (0x40_0000, 3 + 512)
        end, count = scan_entries(memory(), there.root, 4, IDENTITY, 0x20_0000, 0x40_0000, 0x60_0000, True, *columns)
        assert (end, count) == (0x60_0000, 1)  # those above have been loaded
        assert columns[1][0] == 0


@pytest.mark.parametrize(
    ("gva", "level", "loads"), [(0, 1, 4), (0x1000, 1, 4), (0x20_0000, 1, 3), (1 << 39, 1, 1), (0, 3, 2)]
)
def test_a_walk_down_loads_an_entry_of_each_level_until_one_is_absent(gva: int, level: int, loads: int) -> None:
    with space(nested=True) as there:
        there.map(0, 1, there.take(1), there.take(3))
        places, values = np.empty(5, np.int64), np.empty(5, np.int64)
        count = walk_entries(memory(), there.root, 4, level, there.backing, gva, places, values)
        assert count == loads
        assert places[0] == there.root + 8 * (gva >> 39)
        assert all(places[n + 1] >> 12 == values[n] >> 12 for n in range(count - 1))


def check(there: Space, model: dict[int, tuple[int, int]], gva: int) -> None:
    frame, leaf = next(
        ((frame, leaf) for start, (frame, leaf) in model.items() if start <= gva < start + span(leaf)), (None, 0)
    )
    expected = None if frame is None else ((frame << 12) + gva % span(leaf), leaf)
    assert there.read(gva) == expected


@given(first=st.integers(0, 511), count=st.integers(1, 700), leaf=st.sampled_from([1, 2]))
def test_many_pages_are_mapped_at_once_across_tables(first, count, leaf):
    with space(nested=False) as there:
        gva = 0x40_0000_0000 + first * span(leaf)
        pages = np.arange(count, dtype=np.int64) * (1 if leaf == 1 else 512) % FRAMES
        tables = there.take(8)
        used = there.map(gva, leaf, pages, tables)
        spans = (first + count - 1) // 512 + 1
        assert used == (2 + spans if leaf == 1 else 1 + spans)
        for number in {0, count // 2, count - 1, min(count - 1, 511 - first), min(count - 1, 512 - first)}:
            assert there.read(gva + number * span(leaf)) == (int(pages[number]) << 12, leaf)
        assert there.read(gva + count * span(leaf)) is None


@given(gpas=st.lists(st.integers(0, (GUEST_FRAMES + 64 << 12) - 1), min_size=1, max_size=20))
def test_a_gpa_lies_where_the_plain_reader_says(gpas):
    with space(nested=True) as there:
        for gpa in gpas:
            place = translate(there.words, *there.nested, gpa)
            assert host_address(there.backing, gpa) == (place[0] if place else UNBACKED)
            assert walked(memory(), *there.nested, gpa) == (place[0] if place else UNBACKED)
            level, entry = [(level, place) for level, place, _ in descend(there.words, *there.nested, gpa)][-1]
            assert find_entry(memory(), *there.nested, 1, gpa) == (entry, level)
        assert host_address(IDENTITY, gpas[0]) == walked(memory(), 0, 0, gpas[0]) == gpas[0]


@pytest.mark.parametrize("nested", [False, True], ids=["native", "nested"])
@settings(max_examples=30)
@given(
    spans=st.lists(
        st.tuples(st.sampled_from([0, 1, 767]), st.sampled_from([0, 5, 1020]), st.integers(1, 1300)),
        min_size=1,
        max_size=4,
    ),
    large=st.lists(st.sampled_from([2, 3, 700]), max_size=2, unique=True),
    seed=st.integers(0, 1 << 16),
)
def test_tables_of_two_levels_are_those_that_the_plain_reader_reads(nested, spans, large, seed):
    """1024 entries of 4 bytes; nested, they are reached through tables of the same kind, as on such a host."""
    random = Random(seed)
    with space(nested=False) as there:
        root, host, backing, model = there.root, (0, 0), IDENTITY, {}
        if nested:
            root, host = 0, (there.root, 2)
            pfns = buddy_take(there.zone, there.frames, 1 << 11)
            random.shuffle(pfns)
            tables = buddy_take(there.zone, there.frames, 2)
            assert map_pages(memory(), there.host, there.root, 2, 1, IDENTITY, 0, pfns, tables, TABLE, PAGE) == 2
            there.zone, there.frames = buddy.make_zone(1 << 11)
            there.take(1)  # the root
            backing = make_backing(1 << 11)
            fill_backing(memory(), backing, there.host, *host)
            clear_frame(memory(), int(host_address(backing, 0)))
        for first in large:
            gfn = random.randrange(900) << 10  # data has no contents, and need not exist
            bits = np.int64(PAGE | PS)
            places, values = np.empty(5, np.int64), np.empty(5, np.int64)
            assert walk_entries(memory(), root, 2, 2, backing, first << 22, places, values) == 1
            assert places[0] == root + 4 * first
            store_entries(memory(), backing, places[:1], np.array([gfn << 12 | bits]), 10)
            model |= {(first << 10) + part: gfn + part for part in range(1024)}
        for slot, first, count in spans:
            start = (slot << 10) + first
            ends = (vpn for vpn in range(start, start + count) if vpn in model)
            pages = np.array([random.randrange(1 << 11) for _ in range(start, next(ends, start + count))], np.int64)
            if not len(pages):
                continue
            where = root, 2, 1, backing, start << 12
            missing = int(missing_tables(memory(), *where))
            assert missing == int(map_page(memory(), there.frames, *where, pages[0], PAGE))
            used = map_pages(memory(), there.frames, *where, pages, there.take(3), TABLE, PAGE)
            assert missing <= used <= missing + (start + len(pages) - 1 >> 10) - slot
            model |= {start + number: int(page) for number, page in enumerate(pages)}
        for vpn in {0, 1 << 19, *random.sample(sorted(model), min(len(model), 50)), *(vpn + 1 for vpn in [*model][:9])}:
            found = translate_guest(there.words, root, 2, *host, vpn << 12) if nested else None
            found = found if nested else translate(there.words, root, 2, vpn << 12)
            assert (found and found[0]) == (model[vpn] << 12 if vpn in model else None)
        address, seen = 0, {}
        columns = [np.empty(2048, np.int64) for _ in range(4)]
        while address < 1 << 32:
            address, listed = scan_entries(memory(), root, 2, backing, 0, address, 1 << 32, False, *columns)
            places, values, starts, levels = (column[:listed] for column in columns)
            loaded = np.empty(listed, np.int64)
            load_entries(memory(), backing, places, loaded, 10)
            assert loaded.tolist() == values.tolist()
            for start, level, value in zip(starts.tolist(), levels.tolist(), values.tolist(), strict=True):
                parts = {1: 1, 2: 1024}.get(level, 0)
                seen |= {(start >> 12) + part: (value >> 12) + part for part in range(parts)}
        assert seen == model
        places, tables = np.empty(8, np.int64), np.empty(8, np.int64)
        count = list_tables(memory(), root, 2, backing, 1 << 32, places, tables)
        assert count == len({vpn >> 10 for vpn in model} - {*large})


def frames_where(there: Space, condition: np.ndarray) -> set[int]:
    return set(np.flatnonzero(condition).tolist())


@pytest.mark.parametrize("nested", [False, True], ids=["native", "nested"])
@settings(max_examples=25)
@given(
    leaf=st.sampled_from([1, 2]),
    first=st.integers(0, 600),
    count=st.integers(1, 600),
    left=st.sampled_from([0, 1, 2, 3, 4, 100, 511, 512, 515, FRAMES]),
    something=st.booleans(),
)
def test_populating_maps_every_page_once_and_loses_no_frame(nested, leaf, first, count, left, something):
    base = 0x7F00_0000_0000
    with space(nested) as there:
        free = there.frames["state"] == State.FREE
        if something:
            there.map(base + 0x5000, 1, there.take(1), there.take(3))
        there.take(max(0, int(there.zone[0].free) - left))
        was_free = there.frames["state"] == State.FREE
        was_mapped = there.read(base + 0x5000)
        start = base + first * span(leaf)
        limit = start + (count if leaf == 1 else count % 3 + 1) * span(leaf)
        scratch = np.zeros(8, np.int64), np.zeros(1, np.int64)
        owner = 7
        reached = int(
            populate(
                memory(),
                there.zone,
                there.frames,
                owner,
                there.root,
                4,
                leaf,
                there.backing,
                start,
                limit,
                TABLE,
                PAGE,
                *scratch,
            )
        )
        assert start <= reached <= limit
        assert something or was_mapped is None
        mapped: list[int] = []
        for gva in range(start, reached, span(leaf)):
            found = there.read(gva)
            if found is None or found[1] < leaf:  # a table of small pages stands where the large one would
                assert leaf == 2
                assert there.missing(gva, leaf) == BLOCKED
            elif not (was_mapped and gva == base + 0x5000):
                mapped += range(found[0] >> 12, found[0] + span(leaf) >> 12)
        assert len(set(mapped)) == len(mapped)  # nothing is mapped twice
        taken = (there.frames["owner"] == owner) & (there.frames["state"] != State.FREE)
        tables = taken & (there.frames["state"] == State.TABLE)
        assert frames_where(there, taken & ~tables) == set(mapped)  # nothing is taken and not mapped
        assert there.frames["rmap"][tables].all()  # every table is linked to another
        assert not (taken & ~was_free).any()
        assert int(there.zone[0].free) == int((was_free & ~taken).sum()) <= int(free.sum())
        if was_mapped:
            assert there.read(base + 0x5000) == was_mapped
        if reached < limit:
            assert there.zone[0].free < there.missing(reached, leaf) + (1 << 9 * (leaf - 1)) or no_block(there, leaf)


def no_block(there: Space, leaf: int) -> bool:
    """Return whether no free block is large enough once a pageblock has been broken up for tables."""
    large = sum(1 << order - 9 for (_, order), head in np.ndenumerate(there.zone[0].heads) if head >= 0 and order >= 9)
    return leaf == 2 and large <= 1


def test_a_table_that_lies_nowhere_is_told_of_and_not_read() -> None:
    with space(nested=True) as guest:
        tables = buddy_take(guest.zone, guest.frames, 4)
        pages = buddy_take(guest.zone, guest.frames, 1)
        way = guest.root, 4
        map_pages(memory(), guest.frames, *way, 1, guest.backing, 0x5000, pages, tables, TABLE, PAGE)
        places, values, starts, sizes = np.zeros((4, 600), np.int64)
        assert walk_entries(memory(), *way, 1, guest.backing, 0x5000, places, values) == 4
        outside = GUEST_FRAMES + 77 << 12
        store_entries(memory(), guest.backing, places[2:3], np.array([outside | TABLE]), 9)
        assert missing_tables(memory(), *way, 1, guest.backing, 0x6000) == NOWHERE
        assert map_page(memory(), guest.frames, *way, 1, guest.backing, 0x6000, 7, PAGE) == NOWHERE
        assert walk_entries(memory(), *way, 1, guest.backing, 0x6000, places, values) == -4
        assert places[3] == outside + 6 * 8
        room = places, values, starts, sizes
        assert scan_entries(memory(), *way, guest.backing, 0x7000, 0x7000, 0x9000, False, *room) == (
            UNBACKED,
            outside + 7 * 8,
        )
        assert list_tables(memory(), *way, guest.backing, 1 << 48, places, values) == 3
        assert walked(memory(), *guest.nested, 1 << 48 | 0x5000) == UNBACKED  # more than 4 levels translate
        assert host_address(guest.backing, 1 << 48 | 0x5000) == UNBACKED
