"""A guest's processes as dicts of pages: what a program does to them, without tables, frames or TLBs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

READ, WRITE = 1, 2  # protection bits


@dataclass
class Page:
    """What the entry of a 4 KiB page should be. Pages of one content share a frame."""

    content: int
    writable: bool
    accessed: bool = True
    dirty: bool = False
    present: bool = True


@dataclass
class Space:
    pages: dict[int, Page] = field(default_factory=dict)
    rights: dict[int, int] = field(default_factory=dict)  # of the pages that lie in a region
    advice: dict[int, set[int]] = field(default_factory=dict)  # of those, what madvise keeps from children
    heap: int = 0


ZEROS = -1  # the content of the page of zeros


class Guest:
    """Demand paging, copy-on-write and the system calls, page by page; with `zeros`, reads map the page of zeros."""

    def __init__(self, *, zeros: bool = False) -> None:
        self.zeros = zeros
        self.spaces = {1: Space()}
        self.parents = {1: 0}
        self.current = 1
        self.faults = 0
        self.contents = count()

    def run(self, steps: Iterable[tuple[Any, ...]]) -> Guest:
        """Carry out the steps of a script, of which each is its current process's unless it names one."""
        speaker = 1
        for what, *rest in steps:
            if what == "touch":
                self.touch(rest[0], bool(rest[1]))
            elif what in ("exit", "exec", "switch"):
                getattr(self, what)(rest[0])
                speaker = rest[0] if what == "switch" else speaker
            elif what == "by":
                speaker = rest[0]
            elif speaker in self.spaces:
                getattr(self, what)(speaker, *rest)
        return self

    def sharers(self, page: Page) -> int:
        spaces = {id(space): space for space in self.spaces.values()}  # one may be several processes'
        users = [other for space in spaces.values() for other in space.pages.values() if other.content == page.content]
        return len(users) + (page.content == ZEROS)  # that is the kernel's as well

    def touch(self, number: int, write: bool) -> None:
        space = self.spaces[self.current]
        rights = space.rights.get(number, READ | WRITE)
        page = space.pages.get(number)
        if page is None:
            self.faults += 1
            zeros = self.zeros and not write
            content = ZEROS if zeros else next(self.contents)
            page = space.pages[number] = Page(content, (bool(rights & WRITE) or write) and not zeros)
        elif not page.present or (write and not page.writable):
            self.faults += 1
            page.present = True
            if write:
                if self.sharers(page) > 1:
                    page.content = next(self.contents)
                page.writable = True
        page.accessed = True
        page.dirty |= write

    def map(self, pid: int, first: int, pages: int, rights: int = READ | WRITE) -> None:
        self.unmap(pid, first, pages)
        self.spaces[pid].rights |= dict.fromkeys(range(first, first + pages), rights)

    def unmap(self, pid: int, first: int, pages: int) -> None:
        for number in range(first, first + pages):
            self.spaces[pid].pages.pop(number, None)
            self.spaces[pid].rights.pop(number, None)
            self.spaces[pid].advice.pop(number, None)

    def protect(self, pid: int, first: int, pages: int, rights: int) -> None:
        space = self.spaces[pid]
        for number in range(first, first + pages):
            space.rights[number] = rights
            if page := space.pages.get(number):
                page.present = rights != 0
                page.writable = bool(rights & WRITE) and (page.writable or self.sharers(page) == 1)

    def brk(self, pid: int, end: int) -> None:
        space = self.spaces[pid]
        before, space.heap = space.heap or end, end
        if end < before:
            self.unmap(pid, end, before - end)
        space.rights |= dict.fromkeys(range(before, end), READ | WRITE)

    def io(self, pid: int, first: int, pages: int) -> None:
        """A device gets at pages: those that the running process lacks are made as if it had written to them."""
        for number in range(first, first + pages):
            if pid == self.current and (number not in self.spaces[pid].pages or self.breaks(number)):
                self.touch(number, True)

    def breaks(self, number: int) -> bool:
        """Whether a page of the current process is there and may be written to once it has been replaced."""
        space = self.spaces[self.current]
        page = space.pages.get(number)
        allowed = space.rights.get(number, READ | WRITE) & WRITE
        return bool(page and allowed and page.present and not page.writable)

    def move(self, pid: int, first: int, pages: int, to: int) -> None:
        """Mremap: pages and protections go along, but what is the same place or overlaps is not asked for."""
        space = self.spaces[pid]
        if abs(to - first) < pages:
            return
        self.unmap(pid, to, pages)
        for number in range(first, first + pages):
            if number in space.pages:
                space.pages[number - first + to] = space.pages.pop(number)
            if number in space.rights:
                space.rights[number - first + to] = space.rights.pop(number)
            if number in space.advice:
                space.advice[number - first + to] = space.advice.pop(number)

    def discard(self, pid: int, first: int, pages: int, lazily: int = 0) -> None:
        """Madvise: the pages go and the region stays; lazily, they only lose their flags, unless they are shared."""
        space = self.spaces[pid]
        for number in range(first, first + pages):
            page = space.pages.get(number)
            if not lazily:
                space.pages.pop(number, None)
            elif page and page.present and self.sharers(page) == 1:
                page.accessed = page.dirty = False

    def advise(self, pid: int, first: int, pages: int, advice: int) -> None:
        """Madvise: 10 keeps a region from children, 18 gives them zeros in its place; 11 and 19 undo that."""
        space = self.spaces[pid]
        for number in range(first, first + pages):
            if number in space.rights:
                marks = space.advice.setdefault(number, set())
                (marks.add if advice in (10, 18) else marks.discard)({11: 10, 19: 18}.get(advice, advice))

    def populate(self, pid: int, first: int, pages: int) -> None:
        """Mlock: what a region has and is not mapped is made, for writing where that is allowed."""
        space = self.spaces[pid]
        for number in range(first, first + pages):
            rights = space.rights.get(number, 0)
            if pid == self.current and rights and (number not in space.pages or self.breaks(number)):
                self.touch(number, bool(rights & WRITE))

    def share(self, pid: int, child: int) -> None:
        if child not in self.spaces:
            self.spaces[child], self.parents[child] = self.spaces[pid], pid

    def fork(self, pid: int, child: int) -> None:
        if child in self.spaces:
            return
        space = self.spaces[pid]
        kept = {number for number, marks in space.advice.items() if 10 in marks}
        copy = Space(rights={n: r for n, r in space.rights.items() if n not in kept}, heap=space.heap)
        copy.advice = {n: set(marks) for n, marks in space.advice.items() if n not in kept}
        for number, page in space.pages.items():
            if space.advice.get(number):
                continue
            page.writable = False
            copy.pages[number] = Page(page.content, False, False, page.dirty, page.present)
        self.spaces[child], self.parents[child] = copy, pid

    def exec(self, pid: int) -> None:
        if pid in self.spaces:
            self.spaces[pid] = Space()

    def exit(self, pid: int) -> None:
        if pid in self.spaces and len(self.spaces) > 1:
            del self.spaces[pid]
            if pid == self.current:
                parent = self.parents[pid]
                self.current = parent if parent in self.spaces else min(self.spaces)

    def switch(self, pid: int) -> None:
        if pid not in self.spaces:
            self.spaces[pid], self.parents[pid] = Space(), 0
        self.current = pid
