"""Page tables that move to the node where most of what they lead to lies (vMitosis, ASPLOS 2021, section 3.2).

For each page-table page vMitosis counts by node what its entries lead to, at each update of one, and looks at the
counts when pages have been moved: from the leaves to the root, so that a table follows its children, which may have
moved just before. Here the entries are counted when the tables are looked at, which comes to the same counts. A table
is copied to a new frame, the entry that leads to it is changed, and processors forget what they have kept on the way.

Roots stay, for registers hold their addresses; so do the four tables below a root of three levels, whose addresses the
processor keeps as PDPTEs. Memory without CPUs has no say: a table is worth its place by where walks come from.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vmsim.contracts import Flush, LiveVm, Words
from vmsim.frames.buddy import owned
from vmsim.frames.nodes import node_of
from vmsim.frames.records import State
from vmsim.host.memory import HostMemory
from vmsim.machine.formats import ENTRIES, FRAME, PAGE_SHIFT, TWO_LEVEL
from vmsim.machine.layout import guest_width
from vmsim.machine.memory import read_entry, write_entry
from vmsim.scenario.cost import Cost
from vmsim.tables.pages import move_words

__all__ = ["MovedTables"]

_CHUNK = 512  # tables whose entries are looked at in one go


class _Tree(NamedTuple):
    """How the tables of one VM hang together.

    A table is one frame, or two side by side that must stay so (`Monitor.table_order`), by the first of them.
    """

    places: dict[int, list[int]]  # by frame, hpas of the entries that lead to it
    above: dict[int, set[int]]  # by table, those that lead to it
    below: dict[int, list[int]]  # by table, the tables that its entries lead to
    pages: dict[int, Words]  # by table, how many entries lead to pages on each node that has CPUs


class MovedTables:
    """The tables of one VM that move after their children.

    Parameters
    ----------
    vm : LiveVm
        Whose they are.
    host : HostMemory
        Where their frames come from.
    costs : Cost
        `table_page` and `copy_page` of each frame that a table moves to, `entry_edit` of each entry that leads there,
        and `log_scan` of each table whose counts are looked at. Nobody has measured a table that moves; the parts are
        those of a page that does.

    Attributes
    ----------
    counts : Counter
        Tables that were `looked` at, that were found to be `remote` from most of what they lead to, and of these
        `moved`, or `failed` as the node had no frame above its high watermark; `cycles` of all.
    """

    def __init__(self, vm: LiveVm, host: HostMemory, costs: Cost) -> None:
        self.vm = vm
        self.host = host
        self.costs = costs
        self.monitor = vm.monitor
        self.memory: Words = vm.monitor.memory
        self.counts: Counter[str] = Counter(dict.fromkeys(("looked", "remote", "moved", "failed", "cycles"), 0))
        vm.ledger.counters("table_moves", lambda: self.counts)

    def look(self) -> int:
        """Look at all tables, and move those that lie elsewhere than most of their children; return the cycles."""
        tree = self._tree()
        nodes = {each: self._node(each) for each in tree.below}
        cycles, moved = len(nodes) * self.costs.log_scan, list[int]()
        fixed = self._fixed(tree)
        for table in _upwards(tree):
            counts = tree.pages[table].copy()
            for child in tree.below[table]:
                if nodes[child] < len(counts):
                    counts[nodes[child]] += 1
            home, best = nodes[table], int(np.argmax(counts))
            here = int(counts[home]) if home < len(counts) else 0
            if table in fixed or counts[best] <= here:
                continue
            self.counts["remote"] += 1
            new = self._move(table, best, tree.places)
            if new < 0:
                self.counts["failed"] += 1
                continue
            nodes[table] = best
            moved += range(table, table + self._frames)
            entries = sum(len(tree.places.get(table + number, ())) for number in range(self._frames))
            cycles += self._frames * (self.costs.table_page + self.costs.copy_page) + entries * self.costs.entry_edit
        if moved:
            self.counts["moved"] += len(moved) // self._frames
            nested = bool(self._registers["nested_levels"])
            cycles += self.vm.forget(Flush(nested=nested, linear=not nested))
            self.host.give(np.array(moved))
        self.counts["looked"] += len(nodes)
        self.counts["cycles"] += cycles
        return cycles

    @property
    def _registers(self) -> Any:
        return self.vm.vcpus[0].registers[0]

    @property
    def _frames(self) -> int:
        """Frames of a table."""
        return 1 << int(self.monitor.table_order)

    @property
    def _width(self) -> int:
        """Bits of an address that each table translates."""
        nested = int(self._registers["nested_levels"])
        return (10 if nested == TWO_LEVEL else 9) if nested else guest_width(self.vm.vcpus[0].registers)

    def _node(self, table: int) -> int:
        return int(node_of(self.host.zone, np.array([table]))[0])

    def _entries(self, pfns: Words) -> Words:
        """Return the entries of some frames, int64[n, entries]."""
        words = np.stack([self.memory[pfn * ENTRIES : (pfn + 1) * ENTRIES] for pfn in pfns.tolist()])
        return words.view(np.uint32).astype(np.int64) if self._width == 10 else words

    def _tree(self) -> _Tree:
        """Return how the tables hang together now."""
        frames, sockets, span = self.host.frames, self.host.nodes.turns, self._frames
        pfns = owned(self.host.zone, frames, self.vm.spec.index)
        pfns = pfns[frames["state"][pfns] == State.TABLE]
        is_table = np.zeros(len(frames), np.bool_)
        is_table[pfns] = True
        size = 4 if self._width == 10 else 8
        tree = _Tree(defaultdict(list), defaultdict(set), {}, {})
        for start in range(0, len(pfns), _CHUNK):
            some = pfns[start : start + _CHUNK]
            entries = self._entries(some)
            row, column = np.nonzero(entries)
            targets = (entries[row, column] & FRAME) >> PAGE_SHIFT
            inside = (targets < len(frames)) & (targets != some[row])  # a KPT's root leads to itself
            row, column, targets = row[inside], column[inside], targets[inside]
            tables, nodes = is_table[targets], node_of(self.host.zone, targets)
            pages = np.zeros((len(some), sockets), np.int64)
            counted = ~tables & (nodes < sockets)
            np.add.at(pages, (row[counted], nodes[counted]), 1)
            for pfn, each in zip(some.tolist(), pages, strict=True):
                table = pfn & -span
                tree.below.setdefault(table, [])
                tree.pages[table] = tree.pages.get(table, 0) + each
            for at, index, target in zip(
                row[tables].tolist(), column[tables].tolist(), targets[tables].tolist(), strict=True
            ):
                pfn = int(some[at])
                tree.places[target].append((pfn << PAGE_SHIFT) + size * index)
                tree.above[target & -span].add(pfn & -span)
                tree.below[pfn & -span].append(target & -span)
        return tree

    def _fixed(self, tree: _Tree) -> set[int]:
        """Return the tables that registers may lead to: those without another above, and PAE's below them."""
        roots = {table for table in tree.below if not tree.above.get(table)}
        registers = self._registers
        nested = (int(registers["nested_root"]) & FRAME) >> PAGE_SHIFT & -self._frames
        if registers["nested_levels"] == 3:
            three = roots
        else:
            three = roots - {nested} if self.vm.spec.pdpte_registers else set()
        return roots | {table for table in tree.below if tree.above.get(table, roots) & three}

    def _move(self, table: int, to: int, places: dict[int, list[int]]) -> int:
        """Move a table to a node; return its new first frame, -1: there is none."""
        host, order = self.host, int(self.monitor.table_order)
        block = host.take_on(to, 1, order=order, least=host.nodes.marks[to].high)
        if not len(block):
            return -1
        first = int(block[0])
        host.hand_over(np.arange(first, first + self._frames), self.vm.spec.index, State.TABLE)
        for number in range(self._frames):
            self._move_frame(table + number, first + number, places.get(table + number, []))
        host.note_copies(np.arange(table, table + self._frames), to)
        return first

    def _move_frame(self, old: int, new: int, places: list[int]) -> None:
        """Have a frame be the table that another was, and the other hold nothing."""
        records, memory, width = self.host.frames, self.memory, self._width
        move_words(memory, old, new)
        records["rmap"][new], records["rmap"][old] = records["rmap"][old], 0
        for place in places:
            entry = int(read_entry(memory, place, width))
            write_entry(memory, place, np.int64(entry & ~FRAME | new << PAGE_SHIFT), width)
        if self.monitor.names_entries:
            self._rename(old, new)
        self.monitor.table_moved(old, new)

    def _rename(self, old: int, new: int) -> None:
        """Have the reverse map of what a table leads to name its entries there; pages of a guest's are named by gfn."""
        records, entries = self.host.frames, self._entries(np.array([new]))[0]
        index = np.flatnonzero(entries)
        targets, at = (entries[index] & FRAME) >> PAGE_SHIFT, (4 if self._width == 10 else 8) * index
        inside = targets < len(records)
        targets, at = targets[inside], at[inside]
        named = records["rmap"][targets] == (old << PAGE_SHIFT) + at
        if not self.vm.spec.bare:
            named &= records["state"][targets] == State.TABLE
        records["rmap"][targets[named]] = (new << PAGE_SHIFT) + at[named]


def _upwards(tree: _Tree) -> Iterator[int]:
    """Yield all tables, each after those that its entries lead to."""
    left = {table: len({*below}) for table, below in tree.below.items()}
    ready = sorted(table for table, count in left.items() if not count)
    while ready:
        above: set[int] = set()
        for table in ready:
            yield table
            for parent in tree.above.get(table, ()):
                left[parent] -= 1
                if not left[parent]:
                    above.add(parent)
        ready = sorted(above)
