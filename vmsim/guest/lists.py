"""Edits of whole lists of entries of one guest's page tables: looked at, cleared, shared, put into another space.

Where no load and no store traps, compiled code makes them, a list in one call; else they go entry by entry through the
guest's `Mmu`. A list is what lies in a few tables, so that a kernel can be preempted between two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Frames, Mmu, Steps, Stop, Vcpu, VmStopped, Words
from vmsim.machine.formats import ACCESSED, FRAME, PAGE_SHIFT, PRESENT, USER, WRITE
from vmsim.tables.backing import UNBACKED
from vmsim.tables.copies import place_pages, share_pages
from vmsim.tables.listing import list_tables, scan_entries, take_pages

__all__ = ["PAGE_OF", "TABLE_BITS", "Entries", "EntryLists", "Places"]

Places: TypeAlias = set[int]

TABLE_BITS = PRESENT | WRITE | USER | ACCESSED
# The page's address in an entry, by its level; of one for 4M the bits that are not 2M's are 0.
PAGE_OF = np.array([FRAME] + [FRAME & -(1 << (3 + 9 * level)) for level in (1, 2, 3)])
_NO_TABLES = np.empty(0, np.int64)


class Entries(NamedTuple):
    """Entries that map pages, by ascending address; int64[n] each."""

    starts: Words  # gva of the page
    levels: Words  # 1, 2, 3: a page of 4K, 2M (4M), 1G
    places: Words  # gpa of the entry
    values: Words

    @property
    def firsts(self) -> Words:
        """First frame of each page."""
        return np.asarray((self.values & PAGE_OF[self.levels]) >> PAGE_SHIFT)

    def of(self, which: NDArray[np.bool_]) -> Entries:
        """Return those for which `which` (bool[n]) is true."""
        return Entries(self.starts[which], self.levels[which], self.places[which], self.values[which])


_NO_ENTRIES = Entries(*np.empty((4, 0), np.int64))


class EntryLists(ABC):
    """Lists of entries of the tables of a guest, whose attributes are `PageTables`'s."""

    memory: Words
    mmu: Mmu
    frames: Frames
    levels: int
    width: int
    backing: Words
    table_cycles: int
    _scan: Words

    @abstractmethod
    def expect_program(self, gva: int) -> None:
        """Refuse an address that is the kernel's own."""

    @abstractmethod
    def places(self, table: int, gvas: Words, level: int) -> Words:
        """Return where in a table of `level` the entries for `gvas` lie, int64[n]."""

    @abstractmethod
    def table(self, vcpu: Vcpu, root: int, gva: int, level: int, known: Places | None = None) -> Steps[int | None]:
        """Return the gpa of the table of `level` that translates `gva`, made if it is missing; None if it cannot be."""

    def scan(
        self, vcpu: Vcpu, root: int, first: int, address: int, limit: int, *, every: bool
    ) -> Steps[tuple[int, Entries]]:
        """Look through some of [first, limit), from `address` on; return where it stopped, and what maps pages.

        A whole scan begins with `address` = `first` and goes on where it stopped; it loads no entry twice. With
        `every`, as for a region, the kernel loads absent entries too; without, as for all of an address space, only
        those in use.

        Raises
        ------
        VmStopped
            An entry leads to a table beyond the guest's memory, or the range is not all a program's.
        """
        if not self.mmu.loads_trap:
            return (yield from self._take(vcpu, root, first, address, limit, clear=False))
        self.expect_program(limit - 1)
        starts, levels, places, values = self._scan
        while True:
            stop, count = scan_entries(
                self.memory, root, self.levels, self.backing, first, address, limit, every,
                places, values, starts, levels,
            )  # fmt: skip
            if stop != UNBACKED:
                break
            yield from self._bring_table(vcpu, count)
        seen = Entries(*self._scan[:, :count].copy())
        seen = seen._replace(values=(yield from self.mmu.read(vcpu, seen.places)))
        return stop, seen.of(seen.levels > 0)

    def find_pages(self, vcpu: Vcpu, root: int, first: int, limit: int) -> Steps[tuple[int, Entries]]:
        """Return what maps pages from `first` on, before the kernel has loaded any of it; and where that stopped.

        Raises
        ------
        VmStopped
            As of `scan`.
        """
        return (yield from self._take(vcpu, root, first, first, limit, clear=False))

    def clear(
        self, vcpu: Vcpu, root: int, first: int, address: int, limit: int, *, every: bool
    ) -> Steps[tuple[int, Entries]]:
        """Do as `scan`, and clear what maps pages; return that as it was.

        Raises
        ------
        VmStopped
            As of `scan`.
        """
        if not self.mmu.traps:
            return (yield from self._take(vcpu, root, first, address, limit, clear=True))
        stop, seen = yield from self.scan(vcpu, root, first, address, limit, every=every)
        if len(seen.places):
            yield from self.mmu.write(vcpu, seen.places, np.zeros(len(seen.places), np.int64))
        return stop, seen

    def _take(
        self, vcpu: Vcpu, root: int, first: int, address: int, limit: int, *, clear: bool
    ) -> Steps[tuple[int, Entries]]:
        """Do as `scan`, and as `clear`, where no load and no store traps."""
        self.expect_program(limit - 1)
        while True:
            stop, count = take_pages(
                self.memory, root, self.levels, self.backing, first, address, limit, clear, self._scan
            )
            if stop != UNBACKED:
                if clear and count:
                    self.mmu.took()
                return stop, Entries(*self._scan[:, :count].copy()) if count else _NO_ENTRIES
            yield from self._bring_table(vcpu, count)

    def _bring_table(self, vcpu: Vcpu, gpa: int) -> Steps[None]:
        """Have the host back the table of an entry.

        Raises
        ------
        VmStopped
            No memory is there at all.
        """
        if gpa >> PAGE_SHIFT >= len(self.backing):
            raise VmStopped(Stop.BEYOND_MEMORY, address=int(gpa))
        yield from self.frames.ensure(vcpu, np.array([gpa >> PAGE_SHIFT]))

    def share(self, vcpu: Vcpu, seen: Entries, more: NDArray[np.int32]) -> Steps[bool]:
        """Take the right to write from entries whose pages are mapped once more (fork), where no store traps.

        Parameters
        ----------
        more : int32[frames]
            As of `Sharing.counts`.

        Returns
        -------
        bool
            Whether any had the right.
        """
        where = self.memory, self.backing, self.frames.frames, more, seen.levels, seen.places, seen.values, self.levels
        while (protected := share_pages(*where)) == UNBACKED:
            yield from self.frames.ensure(vcpu, seen.places >> PAGE_SHIFT)
        if protected:
            self.mmu.took()
        return bool(protected)

    def place(self, vcpu: Vcpu, root: int, entries: Entries, known: Places, *, fresh: bool = False) -> Steps[None]:
        """Write entries to a space that lacks them, table by table; `known` is as of `table`.

        `fresh` says that no processor has ever walked the space's tables.
        """
        count = len(entries.places)
        if not count:
            return
        if self.mmu.traps and not (fresh and self.mmu.unseen):
            yield from self._place_each(vcpu, root, entries, known)
            return
        columns, tables = np.array(entries), _NO_TABLES
        where = self.memory, self.frames.frames, root, self.levels, self.backing, columns, count
        while True:
            needed, absent = place_pages(*where, tables, TABLE_BITS)
            if absent != UNBACKED:
                yield from self.frames.ensure(vcpu, np.array([absent]))
            elif needed <= len(tables):
                self.frames.give_tables(tables[needed:])
                return
            else:
                made = tables.tolist()
                while len(made) < needed:
                    made.append((yield from self.frames.allocate_table(vcpu)))
                    vcpu.owe("guest_fault", self.table_cycles)
                    if self.mmu.traps:
                        yield from self.mmu.clear(vcpu, made[-1] << PAGE_SHIFT, 0, table=True)
                tables = np.array(made)

    def _place_each(self, vcpu: Vcpu, root: int, entries: Entries, known: Places) -> Steps[None]:
        home = entries.starts >> (PAGE_SHIFT + self.width * entries.levels)  # the table that an entry belongs to
        ends = np.flatnonzero((np.diff(home) != 0) | (np.diff(entries.levels) != 0)) + 1
        for part in np.split(np.arange(len(home)), ends):
            level = int(entries.levels[part[0]])
            table = yield from self.table(vcpu, root, int(entries.starts[part[0]]), level, known)
            assert table is not None  # the space held nothing larger
            places = self.places(table, entries.starts[part], level)
            rmap, firsts = self.frames.frames["rmap"], entries.firsts[part]
            rmap[firsts] = np.where(rmap[firsts] != 0, places, 0)  # of a page that is shared there is none
            yield from self.mmu.write(vcpu, places, entries.values[part])

    def clear_tables(self, vcpu: Vcpu, root: int, limit: int) -> Steps[Words]:
        """Clear every entry that points to a table below the root; return the tables' frames."""
        room, count = 64, 65
        while count > room:
            room = max(room, count)
            places, tables = np.empty(room, np.int64), np.empty(room, np.int64)
            count = list_tables(self.memory, root, self.levels, self.backing, limit, places, tables)
            if count < 0:  # a table lies nowhere just now
                yield from self.frames.ensure(vcpu, np.array([-1 - count]))
                count = room + 1
        if self.mmu.loads_trap:
            yield from self.mmu.read(vcpu, places[:count])
        yield from self.mmu.write(vcpu, places[:count], np.zeros(count, np.int64))
        return tables[:count] >> PAGE_SHIFT
