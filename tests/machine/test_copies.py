"""Do tables that are kept once, with a few bits for each copy, act as true copies do: in state, and in work?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine.geometries import PREFIX
from tests.oracle.table_copies import TrueCopies
from vmsim.jit import kernel
from vmsim.machine.copies import JOURNAL, OWNER_BITS, note_read, place_of, rows_of, seen_in_copy, set_in_copy
from vmsim.machine.layout import make_cores, set_nodes
from vmsim.machine.memory import clear_frame, physical_memory, read_entry, set_entry, write_entry

NODES, FRAMES, OWNERS, OWNER = 4, 8, 3, 1
TABLE, COPIES = 2, {1: 5, 3: 6}  # node 2 has none: it walks the table itself, as node 0 does
FLAGS = {"npt": (0x20, 0x40), "ept": (0x100, 0x200), "ept without flags": (0, 0)}


@kernel
def see(core, memory, hpa, accessed, dirty, width):
    return seen_in_copy(core[0], memory, hpa, read_entry(memory, hpa, width), accessed, dirty, width)


@kernel
def mark(core, memory, hpa, marks, width):
    entry = read_entry(memory, hpa, width)
    set_entry(memory, hpa, entry | marks, width)
    return set_in_copy(core[0], memory, hpa, entry, marks, width)


@kernel
def where(core, memory, hpa):
    return place_of(core[0], memory, hpa)


@kernel
def look(memory, hpa):
    note_read(memory, hpa)


@kernel
def edit(memory, hpa, entry, width):
    write_entry(memory, hpa, entry, width)


def made():
    """Return memory whose frame TABLE has copies, what was done to them, and a core of each node."""
    memory = physical_memory(FRAMES, NODES, OWNERS)
    rows, done, journal = rows_of(memory, FRAMES, NODES, OWNERS)
    rows[TABLE, 1:] = TABLE
    for node, pfn in COPIES.items():
        rows[TABLE, 1 + node] = pfn
    rows[TABLE, 0] = (COPIES[1] + 1) << OWNER_BITS | OWNER + 1
    cores = make_cores(PREFIX, NODES)
    for node in range(NODES):
        set_nodes(cores[node : node + 1], [4096 * FRAMES], [0], node)
    return memory, done, journal, cores


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "clear", "read", "walk", "set", "set", "set"]),
        st.integers(0, NODES - 1),
        st.integers(0, 3),
        st.integers(0, 0x7FFF),
        st.integers(1, 3),
    ),
    max_size=40,
)


@pytest.mark.parametrize("width", [9, 10])
@pytest.mark.parametrize("form", FLAGS)
@settings(max_examples=40, deadline=None)
@given(operations=OPERATIONS)
def test_tables_kept_once_are_as_true_copies(form, width, operations):
    if width == 10 and form != "npt":
        return  # EPT has no entries of 4 bytes
    memory, done, journal, cores = made()
    accessed, dirty = FLAGS[form]
    twin = TrueCopies(0, tuple(COPIES), 4096 >> (12 - width), accessed | dirty)
    written = []
    for what, core, index, entry, bits in operations:
        hpa = TABLE << 12 | index << (12 - width)
        marks = accessed * (bits & 1) | dirty * (bits >> 1)
        if what == "write":
            edit(memory, hpa, entry, width)
            twin.write(index, entry)
            written.append(hpa)
        elif what == "clear":
            clear_frame(memory, TABLE << 12)
            twin.clear()
            written.append(TABLE << 12)
        elif what == "read":
            look(memory, hpa)
            assert read_entry(memory, hpa, width) == twin.read(index)
        elif what == "set" and marks:
            assert mark(cores[core : core + 1], memory, hpa, marks, width) == twin.set(core, index, marks)
        for each in range(4):
            at = TABLE << 12 | each << (12 - width)
            assert read_entry(memory, at, width) == twin.all_together(each)
            for node in range(NODES):
                seen = see(cores[node : node + 1], memory, at, accessed, dirty, width)
                assert seen == twin.walk(node, each), (what, node, each)
    assert {("write", node): int(done[0, OWNER, node]) for node in COPIES if done[0, OWNER, node]} | {
        ("read", node): int(done[1, OWNER, node]) for node in COPIES if done[1, OWNER, node]
    } == dict(twin.work)
    assert done.sum() == sum(twin.work.values())
    assert journal[1 : 1 + int(journal[0])].tolist() == written


def test_a_core_walks_the_copy_of_its_node_and_the_table_itself_where_there_is_none():
    memory, _, _, cores = made()
    found = [int(where(cores[node : node + 1], memory, TABLE << 12 | 0x128)) for node in range(NODES)]
    assert found == [pfn << 12 | 0x128 for pfn in (TABLE, 5, TABLE, 6)]
    assert int(where(cores[3:4], memory, 7 << 12)) == 7 << 12


def test_more_writes_than_the_list_has_room_for_are_counted():
    memory, done, journal, _ = made()
    for _ in range(JOURNAL + 5):
        edit(memory, TABLE << 12, 7, 9)
    assert journal[0] == JOURNAL + 5
    assert done[0, OWNER].tolist() == [0, JOURNAL + 5, 0, JOURNAL + 5]


def test_memory_of_a_host_without_copies_is_its_frames_alone():
    assert len(physical_memory(3)) == 3 * 512
    for nodes in range(1, 17):
        assert len(physical_memory(11, nodes, 1)) % 512 != 0
    assert np.count_nonzero(physical_memory(4, 2, 1)) == 0
