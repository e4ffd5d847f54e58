"""The regions of an address space (Linux's VMAs): ranges with one protection each, sorted and disjoint."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

__all__ = ["EXECUTE", "FILE", "KINDS", "READ", "SHARED", "WRITE", "Regions", "around_in_file"]

ADDRESSES = 1 << 57  # end of what five levels translate
READ, WRITE, EXECUTE = 1, 2, 4  # protection bits, as of mmap's events
SHARED, FILE = 8, 16  # and of what kind a mapping is, which mprotect leaves as it is; else private, of no file
KINDS = SHARED | FILE
_AROUND = 1 << 16  # bytes of a file that a fault maps at most (Linux mm/memory.c, fault_around_bytes)
_PAGE = 1 << 12


class Regions:
    """What mmap, munmap, mprotect and brk have declared.

    Regions are half open, in bytes. Neighbours of one protection are one region, so that there are as few as can be.
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._rights: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return zip(self._starts, self._ends, self._rights, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def copy(self) -> Regions:
        """Return regions of their own that say the same."""
        other = Regions()
        other._starts, other._ends, other._rights = self._starts[:], self._ends[:], self._rights[:]
        return other

    def at(self, address: int) -> int | None:
        """Return the protection of the region that holds `address`, None outside every one."""
        place = bisect_right(self._starts, address) - 1
        return self._rights[place] if place >= 0 and address < self._ends[place] else None

    def around(self, address: int) -> tuple[int, int, int | None]:
        """Return (start, end, protection) of the region that holds `address`, or of the gap there (None)."""
        place = bisect_right(self._starts, address)
        if place and address < self._ends[place - 1]:
            return self._starts[place - 1], self._ends[place - 1], self._rights[place - 1]
        start = self._ends[place - 1] if place else 0
        return start, self._starts[place] if place < len(self) else ADDRESSES, None

    def within(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Return (start, end, protection) of the parts of regions that lie in [start, end)."""
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        return [
            (max(self._starts[place], start), min(self._ends[place], end), self._rights[place])
            for place in range(first, last)
        ]

    def alike(self, start: int, end: int) -> bool:
        """Whether all of [start, end) is of a kind and may be touched and written alike, as outside every region."""
        parts = self.within(start, end)
        rights = {(rights != 0, rights & (WRITE | KINDS)) for _, _, rights in parts}
        if sum(last - first for first, last, _ in parts) < end - start:
            rights.add((True, WRITE))
        return len(rights) == 1

    def declare(self, start: int, end: int, rights: int) -> None:
        """Make [start, end) a region of protection `rights`, whatever was there."""
        if start >= end:
            return
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)  # neighbours that touch too
        before = [(s, start, r) for s, r in self._edge(first, last, 0) if s < start]
        after = [(end, e, r) for e, r in self._edge(first, last, -1) if e > end]
        parts = [*before, (start, end, rights), *after]
        merged = [parts[0]]
        for part in parts[1:]:
            if part[2] == merged[-1][2]:
                merged[-1] = merged[-1][0], part[1], part[2]
            else:
                merged.append(part)
        self._replace(first, last, merged)

    def remove(self, start: int, end: int) -> None:
        """Make [start, end) lie outside every region."""
        first, last = bisect_right(self._ends, start), bisect_left(self._starts, end)
        if start >= end or first >= last:
            return
        kept = [(s, start, r) for s, r in self._edge(first, last, 0) if s < start]
        kept += [(end, e, r) for e, r in self._edge(first, last, -1) if e > end]
        self._replace(first, last, kept)

    def move(self, start: int, end: int, to: int) -> None:
        """Declare at `to` what lies in [start, end), and no longer there."""
        parts = self.within(start, end)
        self.remove(start, end)
        self.remove(to, to + end - start)
        for first, last, rights in parts:
            self.declare(first - start + to, last - start + to, rights)

    def _edge(self, first: int, last: int, which: int) -> list[tuple[int, int]]:
        """Return (start, protection) of the first of some regions, or (end, protection) of the last (-1)."""
        if first >= last:
            return []
        place = first if which == 0 else last - 1
        return [((self._starts if which == 0 else self._ends)[place], self._rights[place])]

    def _replace(self, first: int, last: int, parts: list[tuple[int, int, int]]) -> None:
        self._starts[first:last] = [part[0] for part in parts]
        self._ends[first:last] = [part[1] for part in parts]
        self._rights[first:last] = [part[2] for part in parts]


def around_in_file(regions: Regions, gva: int) -> list[int]:
    """Return the other pages of a file that a read of the one at `gva` maps: those of its aligned 64 KiB, and region.

    All of a file is taken to be in the page cache (Linux mm/memory.c, do_fault_around).
    """
    start, end, _ = regions.around(gva)
    first = gva & -_AROUND
    page = gva & -_PAGE
    return [at for at in range(max(start, first), min(end, first + _AROUND), _PAGE) if at != page]
