"""Page tables in a host's memory, for tests of what edits them; and counts by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import numpy as np

from tests.machine.worlds import memory
from tests.oracle.bits import PS, span
from tests.oracle.tables import translate, translate_guest
from vmsim.frames import buddy
from vmsim.frames.records import State
from vmsim.machine.formats import ACCESSED, DIRTY, EPT, PRESENT, USER, WRITE
from vmsim.machine.memory import clear_frame
from vmsim.tables.backing import IDENTITY, fill_backing, make_backing
from vmsim.tables.edit import (
    BLOCKED,
    MAPPED,
    map_pages,
    missing_tables,
)

TABLE = PRESENT | WRITE | USER | ACCESSED
PAGE = TABLE | DIRTY
FORMAT = EPT(ad_bits=True)
FRAMES = 8192  # of the host; nothing outside of them is touched
GUEST_FRAMES = 4096
NONE = np.empty(0, np.int64)


class Words:
    """The memory as the plain reader wants it."""

    def get(self, hpa: int, default: int = 0) -> int:
        assert 0 <= hpa < FRAMES << 12
        return int(memory()[hpa >> 3])


class Space:
    """Tables of 4 levels in host memory, or a guest's in guest memory that nested tables map to the host."""

    def __init__(self, nested: bool) -> None:
        self.host_zone, self.host = buddy.make_zone(FRAMES)
        root = int(buddy.allocate(self.host_zone, self.host, 0, State.TABLE, 0)) << 12
        clear_frame(memory(), root)
        self.words = Words()
        self.nested = (0, 0)
        self.backing = IDENTITY
        self.zone, self.frames, self.root = self.host_zone, self.host, root
        if nested:
            self.nested = (root, 4)
            back = np.arange(GUEST_FRAMES, dtype=np.int64)
            Random(1).shuffle(back)
            pfns = buddy_take(self.host_zone, self.host, GUEST_FRAMES)[back]
            tables = buddy_take(self.host_zone, self.host, 16)
            map_pages(memory(), self.host, root, 4, 1, IDENTITY, 0, pfns, tables, FORMAT.table, FORMAT.page)
            self.backing = make_backing(GUEST_FRAMES)
            fill_backing(memory(), self.backing, self.host, root, 4)
            self.zone, self.frames = buddy.make_zone(GUEST_FRAMES)
            self.root = int(buddy.allocate(self.zone, self.frames, 0, State.TABLE, 0)) << 12
            clear_frame(memory(), self.host_of(self.root))

    def host_of(self, gpa: int) -> int:
        place = translate(self.words, *self.nested, gpa) if self.nested[1] else (gpa, 1)
        assert place is not None
        return place[0]

    def read(self, gva: int) -> tuple[int, int] | None:
        """Return (address, leaf level) by the plain reader."""
        if self.nested[1]:
            return translate_guest(self.words, self.root, 4, *self.nested, gva)
        return translate(self.words, self.root, 4, gva)

    def walk(self, gva: int) -> tuple[int, int, int]:
        """Return (level, place, entry) where a descent ends, the place being an address of the tables' own space."""
        table = self.root
        for level in range(4, 0, -1):
            place = table + 8 * (gva // span(level) % 512)
            entry = self.words.get(self.host_of(place))
            if not entry or entry & PS or level == 1:
                return level, place, entry
            table = entry & ~0xFFF
        raise AssertionError

    def table_of(self, gva: int, level: int) -> int:
        """Return the address of the table of `level` on the way to `gva`."""
        table = self.root
        for above in range(4, level, -1):
            table = self.words.get(self.host_of(table + 8 * (gva // span(above) % 512))) & ~0xFFF
        return table

    def take(self, count: int, order: int = 0) -> np.ndarray:
        return buddy_take(self.zone, self.frames, count, order)

    def map(self, gva: int, leaf: int, pages: np.ndarray, tables: np.ndarray) -> int:
        return int(map_pages(memory(), self.frames, self.root, 4, leaf, self.backing, gva, pages, tables, TABLE, PAGE))

    def missing(self, gva: int, leaf: int) -> int:
        return int(missing_tables(memory(), self.root, 4, leaf, self.backing, gva))


def buddy_take(zone, frames, count: int, order: int = 0) -> np.ndarray:
    pfns = np.empty(count, np.int64)
    assert buddy.allocate_many(zone, frames, order, State.HOST, 1, pfns) == count
    return pfns


@contextmanager
def space(nested: bool) -> Iterator[Space]:
    try:
        yield Space(nested)
    finally:
        memory()[: FRAMES << 9] = 0


def missing_by_hand(there: Space, gva: int, leaf: int) -> int:
    level, _, entry = there.walk(gva)
    if entry:
        return MAPPED if level >= leaf else BLOCKED
    return level - leaf if level >= leaf else BLOCKED


# (slot of a table's worth, first entry in it, pages, leaf level)
