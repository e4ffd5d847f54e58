"""The regions of an address space (Linux's VMAs): ranges with one protection each, sorted and disjoint."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vmsim.guest.region_rows import (
    COUNT,
    END,
    FILE,
    HEAP,
    HUGE,
    KINDS,
    NO_REGION,
    NOT_FORKED,
    NOT_HUGE,
    RIGHTS_OF,
    SHARED,
    START,
    WIPED,
    WRITE,
    around,
    declare,
    remove,
    room_for,
)

__all__ = [
    "EXECUTE",
    "FILE",
    "HUGE",
    "KINDS",
    "NOT_FORKED",
    "NOT_HUGE",
    "READ",
    "SHARED",
    "WIPED",
    "WRITE",
    "Regions",
    "around_in_file",
]

READ, EXECUTE = 1, 4  # protection bits, as of mmap's events; WRITE is the third
_AROUND = 1 << 16  # bytes of a file that a fault maps at most (Linux mm/memory.c, fault_around_bytes)
_PAGE = 1 << 12
_ROOM = 14


class Regions:
    """What mmap, munmap, mprotect and brk have declared.

    Regions are half open, in bytes. Neighbours of one protection are one region, so that there are as few as can be.

    Attributes
    ----------
    rows : int64[room, 3]
        In the first row how many there are, and where the heap ends (the break), 0 until it is first set; then start,
        end and protection of each. Another array once it had to grow.
    edits : int
        How often they were changed by what is here; what compiled code does is not counted.
    """

    def __init__(self, rows: NDArray[np.int64] | None = None) -> None:
        self.rows = np.zeros((_ROOM + 1, 3), np.int64) if rows is None else rows
        self.edits = 0

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return (tuple(row) for row in self.rows[1 : 1 + len(self)].tolist())

    def __len__(self) -> int:
        return int(self.rows[0, COUNT])

    @property
    def heap(self) -> int:
        """Where the heap ends (the break); 0 until it is first set."""
        return int(self.rows[0, HEAP])

    @heap.setter
    def heap(self, end: int) -> None:
        self.rows[0, HEAP] = end

    def copy(self) -> Regions:
        """Return regions of their own that say the same."""
        return Regions(self.rows.copy())

    def at(self, address: int) -> int | None:
        """Return the protection of the region that holds `address`, None outside every one."""
        return self.around(address)[2]

    def around(self, address: int) -> tuple[int, int, int | None]:
        """Return (start, end, protection) of the region that holds `address`, or of the gap there (None)."""
        start, end, rights = around(self.rows, address)
        return int(start), int(end), None if rights == NO_REGION else int(rights)

    def within(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """Return (start, end, protection) of the parts of regions that lie in [start, end)."""
        rows = self.rows[1 : 1 + len(self)]
        first, last = np.searchsorted(rows[:, END], start, "right"), np.searchsorted(rows[:, START], end)
        return [(max(low, start), min(high, end), rights) for low, high, rights in rows[first:last].tolist()]

    def alike(self, start: int, end: int) -> bool:
        """Whether all of [start, end) is of a kind and may be touched and written alike, as outside every region."""
        parts = self.within(start, end)
        alike = WRITE | KINDS | NOT_FORKED | WIPED | HUGE | NOT_HUGE
        rights = {(rights & RIGHTS_OF != 0, rights & alike) for _, _, rights in parts}
        if sum(last - first for first, last, _ in parts) < end - start:
            rights.add((True, WRITE))
        return len(rights) == 1

    def declare(self, start: int, end: int, rights: int) -> None:
        """Make [start, end) a region of protection `rights`, whatever was there."""
        self._make_room()
        declare(self.rows, start, end, rights)

    def remove(self, start: int, end: int) -> None:
        """Make [start, end) lie outside every region."""
        self._make_room()
        remove(self.rows, start, end)

    def move(self, start: int, end: int, to: int) -> None:
        """Declare at `to` what lies in [start, end), and no longer there."""
        parts = self.within(start, end)
        self.remove(start, end)
        self.remove(to, to + end - start)
        for first, last, rights in parts:
            self.declare(first - start + to, last - start + to, rights)

    def _make_room(self) -> None:
        self.edits += 1
        if not room_for(self.rows):
            self.rows = np.concatenate([self.rows, np.zeros_like(self.rows)])


def around_in_file(regions: Regions, gva: int, table: int) -> list[int]:
    """Return the other pages of a file that a read of the one at `gva` maps: 64 KiB of its region, and of its table.

    They begin where memory's aligned 64 KiB do, or where the region does if that is later. All of a file is taken to
    be in the page cache (Linux mm/memory.c, do_fault_around, of 6.4 and later; filemap_map_pages).

    Parameters
    ----------
    table : int
        Bytes that a page table translates.
    """
    start, end, _ = regions.around(gva)
    first = max(start, gva & -_AROUND)
    page = gva & -_PAGE
    last = min(first + _AROUND, end, (gva & -table) + table)
    return [at for at in range(max(first, gva & -table), last, _PAGE) if at != page]
