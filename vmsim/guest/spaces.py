"""Address spaces of a guest: ranges unmapped and protected, spaces copied (fork) and destroyed (exit, exec)."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.guest.edits import Entries, Frames, PageTables
from vmsim.guest.frames import Vcpu
from vmsim.guest.regions import WRITE as WRITABLE
from vmsim.guest.regions import Regions
from vmsim.guest.sharing import Sharing
from vmsim.machine.formats import ACCESSED, PAGE_SHIFT, PRESENT, WRITE, reach
from vmsim.scenario.cpu import Cost

__all__ = ["AddressSpaces", "Space"]

Process = Generator[simpy.Event, Any, None]

_FLUSH_CEILING = 33  # pages above which Linux flushes the whole TLB instead (arch/x86/mm/tlb.c)


@dataclass(eq=False, slots=True)
class Space:
    """One address space.

    Attributes
    ----------
    root : int
        gpa of the root table.
    regions : Regions
        What has been declared; what is touched outside is mapped readable and writable.
    heap : int
        Where the heap ends (the break); 0 until it is first set.
    stale : bool
        It was edited while another was loaded: what the processor has cached of it may be wrong.
    """

    root: int
    regions: Regions = field(default_factory=Regions)
    heap: int = 0
    stale: bool = False


class AddressSpaces:
    """What a kernel does to whole ranges of an address space."""

    def __init__(self, tables: PageTables, frames: Frames, sharing: Sharing, costs: Cost) -> None:
        self.tables = tables
        self.mmu = tables.mmu
        self.frames = frames
        self.sharing = sharing
        self.costs = costs
        self.end = reach(tables.levels)
        self.loaded: Space | None = None  # the one that CR3 holds

    def unmap(self, vcpu: Vcpu, space: Space, first: int, limit: int) -> Process:
        """Unmap [first, limit) and free its pages."""
        yield from self._split_edges(vcpu, space, first, limit)
        gone = yield from self._clear(vcpu, space, first, limit, every=True)
        if not gone:
            return
        yield from self._flush(vcpu, space, first, limit)
        vcpu.owe("guest_fault", self.costs.table_page * sum(len(entries.places) for entries in gone))
        self._free(gone)

    def protect(self, vcpu: Vcpu, space: Space, first: int, limit: int, rights: int) -> Process:
        """Give the pages of [first, limit) that are mapped the protection `rights`.

        A page becomes writable at once where no other space maps it, else when it is copied. A page without any right
        keeps its frame in an entry that is not present (Linux _PAGE_PROTNONE).
        """
        yield from self._split_edges(vcpu, space, first, limit)
        lost, address = False, first
        while address < limit:
            address, seen = yield from self.tables.scan(vcpu, space.root, address, limit, every=True)
            values = seen.values & ~(PRESENT | WRITE) | (PRESENT if rights else 0)
            if rights & WRITABLE:
                for level in (1, 2, 3):
                    pages = seen.levels == level
                    values[pages] |= WRITE * self.sharing.alone(seen.firsts[pages], self.tables.width * (level - 1))
            vcpu.owe("guest_fault", self.costs.entry_edit * len(values))
            yield from self.tables.write(vcpu, seen, values)
            lost = lost or bool((seen.values & ~values & (PRESENT | WRITE)).any())
        if lost:
            yield from self._flush(vcpu, space, first, limit)

    def copy(self, vcpu: Vcpu, space: Space) -> Generator[simpy.Event, Any, Space]:
        """Return a copy that shares every page; neither can write to one before it has been copied.

        The child's entries are not accessed but as dirty as the parent's (Linux copy_present_pte).
        """
        child = Space((yield from self.tables.new_root(vcpu)), space.regions.copy(), space.heap)
        vcpu.owe("guest_fault", self.costs.table_page + self.costs.zero_page)
        protected, address = False, 0
        while address < self.end:
            address, seen = yield from self.tables.scan(vcpu, space.root, address, self.end, every=False)
            writable = seen.of(seen.values & WRITE != 0)
            protected = protected or bool(len(writable.places))
            yield from self.tables.write(vcpu, writable, writable.values & ~WRITE)
            for pages, order in self._by_order(seen):
                self.sharing.add(pages, order)
            vcpu.owe("guest_fault", self.costs.entry_edit * len(seen.places))
            yield from self._place(vcpu, child, seen._replace(values=seen.values & ~(WRITE | ACCESSED)))
        if protected:
            yield from self._flush(vcpu, space, 0, self.end)
        return child

    def destroy(self, vcpu: Vcpu, space: Space) -> Process:
        """Clear all entries of a space and free its pages and tables, but for the root."""
        gone = yield from self._clear(vcpu, space, 0, self.end, every=False)
        tables = yield from self.tables.clear_tables(vcpu, space.root, self.end)
        yield from self._flush(vcpu, space, 0, self.end)
        vcpu.owe("guest_fault", self.costs.table_page * (sum(len(entries.places) for entries in gone) + len(tables)))
        self._free(gone)
        self.frames.give_tables(tables)

    def release(self, vcpu: Vcpu, space: Space, number: int) -> Process:
        """Free the root of a destroyed space that is loaded nowhere; `number` is its PCID, -1 if it has none."""
        yield from self.mmu.release(vcpu, space.root, number)
        self.frames.give_tables(np.array([space.root >> PAGE_SHIFT]))

    def _clear(
        self, vcpu: Vcpu, space: Space, first: int, limit: int, *, every: bool
    ) -> Generator[simpy.Event, Any, list[Entries]]:
        """Clear the entries that map pages; return them as they were."""
        gone, address = [], first
        while address < limit:
            address, seen = yield from self.tables.scan(vcpu, space.root, address, limit, every=every)
            if len(seen.places):
                yield from self.tables.write(vcpu, seen, np.zeros(len(seen.places), np.int64))
                gone.append(seen)
        return gone

    def _free(self, gone: list[Entries]) -> None:
        """Free the frames of pages that were unmapped and that nobody else maps."""
        for entries in gone:
            for pages, order in self._by_order(entries):
                for block, block_order in self.sharing.drop(pages, order):
                    self.frames.give(block, block_order)

    def _flush(self, vcpu: Vcpu, space: Space, first: int, limit: int) -> Process:
        """Make the processor forget a range: by its length, page by page or the whole space, as Linux does."""
        if space is not self.loaded:
            space.stale = True
        elif limit - first >> PAGE_SHIFT > _FLUSH_CEILING:
            yield from self.mmu.flush(vcpu)
        else:
            yield from self.mmu.invalidate(vcpu, first, limit - 1)

    def _split_edges(self, vcpu: Vcpu, space: Space, first: int, limit: int) -> Process:
        """Split the large pages that lie in a range only in part."""
        for edge in (first, limit):
            level = 1 if edge % self.tables.span(2) else 2 if edge % self.tables.span(3) else 3
            if level < 3:
                yield from self.tables.split(vcpu, space.root, edge, level)

    def _place(self, vcpu: Vcpu, space: Space, entries: Entries) -> Process:
        """Write entries to a space that lacks them, table by table."""
        if not len(entries.places):
            return
        home = entries.starts >> (PAGE_SHIFT + self.tables.width * entries.levels)  # the table that an entry belongs to
        ends = np.flatnonzero((np.diff(home) != 0) | (np.diff(entries.levels) != 0)) + 1
        for part in np.split(np.arange(len(home)), ends):
            level = int(entries.levels[part[0]])
            table = yield from self.tables.table(vcpu, space.root, int(entries.starts[part[0]]), level)
            assert table is not None  # the space held nothing larger
            places = self.tables.places(table, entries.starts[part], level)
            yield from self.mmu.write(vcpu, places, entries.values[part])

    def _by_order(self, entries: Entries) -> list[tuple[NDArray[np.int64], int]]:
        """Return the first frames of the pages of each size, and the size's order."""
        firsts = entries.firsts
        if not (entries.levels > 1).any():
            return [(firsts, 0)]
        return [(firsts[entries.levels == level], self.tables.width * (level - 1)) for level in (1, 2, 3)]
