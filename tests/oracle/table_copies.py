"""True copies of page tables, one a node, in plain Python: each entry is written to all, and each walk reads its own.

From Mitosis (Achermann et al., ASPLOS 2020): software writes an entry to every copy, and takes an accessed or dirty
flag for set where any copy has it; hardware sets the flags in the copy that it walks.
"""

from __future__ import annotations

from collections import Counter


class TrueCopies:
    """One table on several nodes, `home` the one that is no copy; nodes without one of their own walk that.

    Attributes
    ----------
    work : Counter
        Entries of copies that software has written and read, by ("write" or "read", node).
    """

    def __init__(self, home: int, nodes: tuple[int, ...], entries: int, flags: int) -> None:
        self.home = home
        self.tables = {node: [0] * entries for node in {home, *nodes}}
        self.flags = flags
        self.work: Counter[tuple[str, int]] = Counter()

    def node_of(self, core: int) -> int:
        return core if core in self.tables else self.home

    def write(self, index: int, entry: int) -> None:
        for table in self.tables.values():
            table[index] = entry
        self._count("write", 1)

    def clear(self) -> None:
        for table in self.tables.values():
            table[:] = [0] * len(table)
        self._count("write", 4096 // 8)  # stores of words

    def read(self, index: int) -> int:
        self._count("read", 1)
        return self.all_together(index)

    def all_together(self, index: int) -> int:
        found = 0
        for table in self.tables.values():
            found |= table[index]
        return found

    def walk(self, core: int, index: int) -> int:
        return self.tables[self.node_of(core)][index]

    def set(self, core: int, index: int, marks: int) -> int:
        table = self.tables[self.node_of(core)]
        table[index] |= marks & self.flags
        return table[index]

    def _count(self, what: str, entries: int) -> None:
        for node in self.tables:
            if node != self.home:
                self.work[what, node] += entries
