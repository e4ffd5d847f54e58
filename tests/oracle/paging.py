"""Which accesses of a program fault, by a kernel written as plainly as can be: pages and mappings in dicts and lists.

Linux's rules (mm/memory.c): do_anonymous_page maps the page of zeros for a read, do_wp_page and do_cow_fault copy,
do_read_fault maps what the page cache has around: 64 KiB of the mapping, from where an aligned 64 KiB or it begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from vmsim.workloads.stream import Chunk, Event, Kind, Op

PAGE, AROUND = 4096, 16  # bytes; pages of a fault in a file
READ, WRITE, SHARED, FILE = 1, 2, 8, 16

Mapping = tuple[int, int, int, int]  # first page, last, rights and kind, and where it was made


@dataclass(eq=False)
class Page:
    """What an entry leads to: the page of zeros, one of a file's in the page cache, or a frame of one's own."""

    what: str
    users: int = 1


@dataclass
class Space:
    """One address space: its mappings, and its entries: page → [what it leads to, whether it may be written]."""

    mappings: list[Mapping] = field(default_factory=list)
    entries: dict[int, list[object]] = field(default_factory=dict)
    heap: int = 0

    def at(self, page: int) -> Mapping | None:
        return next((each for each in self.mappings if each[0] <= page < each[1]), None)

    def put(self, first: int, last: int, rights: int | None, made: int) -> None:
        """Have a mapping, or with None nothing, in [first, last)."""
        kept = []
        for low, high, old, at in self.mappings:
            kept += [(a, b, old, at) for a, b in ((low, min(high, first)), (max(low, last), high)) if a < b]
        if rights is not None and first < last:
            kept.append((first, last, rights, made))
        self.mappings = kept

    def drop(self, first: int, last: int) -> None:
        for page in [page for page in self.entries if first <= page < last]:
            self.entries.pop(page)[0].users -= 1  # type: ignore[attr-defined]


class Paging:
    """The processes of a program.

    Attributes
    ----------
    faults : list of (int, str)
        Page and what the fault did, in order.
    """

    def __init__(self, *, zeros: bool = True) -> None:
        self.zeros = zeros
        self.processes = {1: Space()}
        self.pid = 1
        self.faults: list[tuple[int, str]] = []

    def run(self, chunks: Iterable[Chunk]) -> Paging:
        for chunk in chunks:
            events = [*chunk.events]
            for number, (address, kind) in enumerate(zip(chunk.address.tolist(), chunk.kind.tolist(), strict=True)):
                while events and events[0].position <= number:
                    self.event(events.pop(0))
                self.access(address // PAGE, kind == Kind.WRITE)
            for event in events:
                self.event(event)
        return self

    def access(self, page: int, write: bool) -> None:
        space = self.processes[self.pid]
        entry = space.entries.get(page)
        if entry is None or (write and not entry[1]):
            self.fault(space, page, write)

    def fault(self, space: Space, page: int, write: bool) -> None:
        mapping = space.at(page)
        kind = mapping[2] if mapping else READ | WRITE
        allowed = kind & WRITE != 0
        entry = space.entries.get(page)
        if entry is None:
            what = "anonymous"
            if kind & FILE and not write:
                what = "around"
                assert mapping
                start = max(page // AROUND * AROUND, mapping[0])
                for near in range(start, min(start + AROUND, mapping[1], (page // 512 + 1) * 512)):
                    if near not in space.entries:
                        space.entries[near] = [Page("file"), False]
            elif kind & FILE:
                space.entries[page] = [Page("own" if not kind & SHARED else "file"), True]
                what = "cow"
            elif write or kind & SHARED or not self.zeros:
                space.entries[page] = [Page("own"), allowed or write]
            else:
                space.entries[page] = [Page("zero"), False]
                what = "zero"
            self.faults.append((page, what))
            return
        target = entry[0]
        assert isinstance(target, Page)
        if target.what != "own" or target.users > 1:
            if not kind & SHARED:
                target.users -= 1
                entry[0] = Page("own")
            self.faults.append((page, f"copy of {target.what}"))
        else:
            self.faults.append((page, "right"))
        entry[1] = True

    def event(self, event: Event) -> None:
        if event.op == Op.SWITCH:
            self.processes.setdefault(event.pid, Space())
            self.pid = event.pid
            return
        space = self.processes.get(event.pid)
        if space is None:
            return
        first, last = event.address // PAGE, -(-(event.address + event.length) // PAGE)
        if event.op == Op.MAP:
            space.drop(first, last)
            space.put(first, last, event.argument, first)
        elif event.op == Op.UNMAP:
            space.drop(first, last)
            space.put(first, last, None, 0)
        elif event.op == Op.PROTECT:
            before = list(space.mappings)
            space.put(first, last, event.argument, -1)
            for low, high, old, made in before:
                low, high = max(low, first), min(high, last)
                if low < high:
                    kept = old & (SHARED | FILE) if event.argument else 0
                    space.put(low, high, event.argument | kept, made)
            for page, entry in space.entries.items():
                if first <= page < last:
                    target = entry[0]
                    assert isinstance(target, Page)
                    entry[1] = bool(event.argument & WRITE) and target.what == "own" and target.users == 1
        elif event.op == Op.BRK:
            new = -(-event.address // PAGE)
            before, space.heap = space.heap or new, new
            if new < before:
                space.drop(new, before)
                space.put(new, before, None, 0)
            space.put(before, new, READ | WRITE, -1)
        elif event.op == Op.MOVE:
            to = event.argument // PAGE
            space.drop(to, to + last - first)
            for page in [page for page in space.entries if first <= page < last]:
                space.entries[page - first + to] = space.entries.pop(page)
            moved = [
                (max(a, first), min(b, last), kind, made)
                for a, b, kind, made in space.mappings
                if a < last and b > first
            ]
            space.put(first, last, None, 0)
            space.put(to, to + last - first, None, 0)
            for low, high, kind, made in moved:
                space.put(low - first + to, high - first + to, kind, made)
        elif event.op == Op.DISCARD and not event.argument:
            space.drop(first, last)
        elif event.op == Op.POPULATE:
            for low, high, kind, _ in list(space.mappings):
                for page in range(max(low, first), min(high, last)):
                    there = space.entries.get(page)
                    write = bool(kind & WRITE) and kind & (SHARED | FILE) != SHARED | FILE
                    if kind & 7 and (there is None or (write and not there[1])):
                        self.fault(space, page, write)
        elif event.op == Op.FORK:
            child = Space(list(space.mappings), {}, space.heap)
            for page, entry in space.entries.items():
                mapping = space.at(page)
                if not (mapping and mapping[2] & SHARED):
                    entry[1] = False
                    entry[0].users += 1  # type: ignore[attr-defined]
                    child.entries[page] = list(entry)
            self.processes[event.argument] = child
        elif event.op == Op.SHARE:
            self.processes[event.argument] = space
        elif event.op == Op.EXEC:
            self.processes[event.pid] = Space()
        elif event.op == Op.EXIT and len(self.processes) > 1:
            del self.processes[event.pid]
            if not any(each is space for each in self.processes.values()):
                space.drop(0, 1 << 52)
