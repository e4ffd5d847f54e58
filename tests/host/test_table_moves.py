"""Do tables of random trees move as counting children from the leaves up says, with all that names them?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.table_moves import Table, settle
from vmsim.base.clock import Clock
from vmsim.base.ledger import Ledger
from vmsim.contracts import Flush
from vmsim.frames.nodes import NodeMarks, Nodes, node_of
from vmsim.frames.records import State
from vmsim.host.memory import HostMemory
from vmsim.host.table_moves import MovedTables
from vmsim.machine.formats import FRAME, PAGE_SHIFT, PRESENT
from vmsim.machine.layout import make_vm
from vmsim.machine.memory import physical_memory, read_entry, write_entry
from vmsim.scenario import Marks

SIZES, SOCKETS, OWNER = [300, 300, 300], 2, 5  # two sockets, and a tier
COSTS = SimpleNamespace(table_page=1000, copy_page=100, entry_edit=10, log_scan=1)
FLUSH = 100_000


def trees(depth: int) -> Any:
    pages = st.lists(st.integers(0, 2), max_size=4)
    if depth == 1:
        return st.builds(Table, st.integers(0, 2), pages)
    return st.builds(Table, st.integers(0, 2), st.just([]), st.lists(trees(depth - 1), max_size=3))


class World:
    """A tree of tables in the memory of a host with nodes, of which each keeps so many frames free."""

    def __init__(self, tree: Table, *, width: int, kept: list[int], bare: bool, levels: int, nested: int) -> None:
        marks = [NodeMarks(*(count,) * len(NodeMarks._fields)) for count in kept]
        asked = [[first, *({0, 1, 2} - {first})] for first in range(3)]
        self.host = HostMemory(Clock(), sum(SIZES), Marks(0, 0, 0), Nodes(SIZES, asked, SOCKETS, marks, [0, 0, 1]))
        self.bare = bare
        self.memory, self.width, self.size = physical_memory(sum(SIZES)), width, 4 if width == 10 else 8
        self.at: dict[int, int] = {}  # each table's frame, by its identity
        self.first: dict[int, list[int]] = {}  # what the reverse map says of a table's pages before any moves
        self.flushes: list[Flush] = []
        self.moves: list[tuple[int, int]] = []
        self.root = self._make(tree)
        registers = make_vm(2 if width == 10 else 4)
        registers["cr3"], registers["nested_levels"] = self.root << PAGE_SHIFT, nested
        registers["nested_root"] = self.root << PAGE_SHIFT if nested else 0
        order = SimpleNamespace(memory=self.memory, table_order=0, names_entries=True, table_moved=self._moved)
        spec = SimpleNamespace(index=OWNER, bare=bare, pdpte_registers=levels == 3 and not nested)
        vcpu = SimpleNamespace(registers=registers)
        vm: Any = SimpleNamespace(
            monitor=order,
            spec=spec,
            vcpus=[vcpu],
            ledger=Ledger(),
            forget=lambda flush: self.flushes.append(flush) or FLUSH,
        )
        costs: Any = COSTS
        self.tables = MovedTables(vm, self.host, costs)

    def _moved(self, old: int, new: int) -> None:
        self.moves.append((old, new))

    def _frame(self, node: int, state: State) -> int:
        taken = self.host.take_on(node, 1)
        self.host.hand_over(taken, OWNER, state)
        return int(taken[0])

    def _make(self, table: Table) -> int:
        pfn = self.at[id(table)] = self._frame(table.node, State.TABLE)
        below = [self._make(child) for child in table.below] + [self._frame(node, State.GUEST) for node in table.pages]
        for number, child in enumerate(below):
            place = (pfn << PAGE_SHIFT) + self.size * (5 * number + 1)
            write_entry(self.memory, place, child << PAGE_SHIFT | PRESENT, self.width)
            self.host.frames["rmap"][child] = place
        self.first[id(table)] = self.host.frames["rmap"][below[len(table.below) :]].tolist()
        return pfn

    def seen(self, table: Table, pfn: int) -> None:
        """Find each child where an entry of its table leads, which the reverse map names."""
        assert node_of(self.host.zone, np.array([pfn])) == [table.node]
        assert self.host.frames["owner"][pfn] == OWNER
        assert self.host.frames["state"][pfn] == State.TABLE
        places = (pfn << PAGE_SHIFT) + self.size * (5 * np.arange(len(table.below) + len(table.pages)) + 1)
        below = [(int(read_entry(self.memory, place, self.width)) & FRAME) >> PAGE_SHIFT for place in places.tolist()]
        named = (self.host.frames["rmap"][below] == places)[: None if self.bare else len(table.below)]
        assert named.all()  # pages of a guest's are named by their number there, whatever it looks like
        if not self.bare:
            assert self.host.frames["rmap"][below[len(table.below) :]].tolist() == self.first[id(table)]
        for child, frame in zip(table.below, below, strict=False):
            self.seen(child, frame)


def every(table: Table) -> list[Table]:
    return [table, *(each for child in table.below for each in every(child))]


@pytest.mark.parametrize(("width", "levels", "nested"), [(9, 4, 0), (9, 4, 4), (9, 3, 0), (9, 3, 3), (10, 2, 0)])
@settings(max_examples=40, deadline=None)
@given(tree=trees(4), kept=st.tuples(*[st.sampled_from([0, 0, 180, 190, 300])] * 3))
def test_tables_move_as_their_children_say(width, levels, nested, tree, kept):
    world = World(tree, width=width, kept=list(kept), bare=not nested, levels=levels, nested=nested)
    tree.fixed = True
    for child in tree.below if levels == 3 else ():
        child.fixed = True
    free = [world.host.free_on(node) for node in range(3)]
    settle(tree, SOCKETS, [max(0, has - least) for has, least in zip(free, kept, strict=True)])
    cycles, tables = world.tables.look(), every(tree)
    world.seen(tree, world.root)
    moved, remote = (sum(getattr(table, what) for table in tables) for what in ("moved", "remote"))
    counts = world.tables.counts
    assert (counts["looked"], counts["remote"], counts["moved"]) == (len(tables), remote, moved)
    assert counts["failed"] == remote - moved
    assert world.flushes == ([Flush(nested=nested > 0, linear=not nested)] if moved else [])
    assert cycles == counts["cycles"] == len(tables) + moved * 1110 + (FLUSH if moved else 0)
    assert sum(free) == world.host.free  # what they lay in is free again
    for old, new in world.moves:
        assert not world.memory[old * 512 : (old + 1) * 512].any() or old in {to for _, to in world.moves}
        assert new != old
    before = dict(counts)
    world.tables.look()
    assert counts["moved"] == before["moved"] or counts["failed"]  # all lie where they are to, but for want of room
