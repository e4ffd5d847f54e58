"""Edits of one guest's page tables, entry by entry through its Mmu.

The kernel plans with what memory holds; every load that a real kernel would make then goes through `Mmu.read`, every
store through `Mmu.write`, in the order of Linux: a table is linked from the top down before its entries are written
(mm/memory.c, __pte_alloc), and entries are cleared before frames are freed (mm/mmu_gather.c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from vmsim.contracts import Frames, KernelHalf, Mmu, Steps, Stop, Vcpu, VmStopped, Words
from vmsim.contracts.commit import ROOM
from vmsim.guest.lists import PAGE_OF, TABLE_BITS, Entries, EntryLists, Places
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT, reach
from vmsim.machine.memory import entry_at, width_of
from vmsim.scenario.cpu import Cost
from vmsim.tables.edit import NOWHERE, map_page, map_pages
from vmsim.tables.listing import walk_entries

__all__ = ["Entry", "PageTables"]

Invalidate: TypeAlias = Callable[[Vcpu, int, int, int, int], Steps[None]]


class Entry(NamedTuple):
    """One entry; its value is 0 where it is absent."""

    level: int
    place: int
    value: int

    @property
    def first(self) -> int:
        """First frame of the page that it maps."""
        return int(self.value & PAGE_OF[self.level]) >> PAGE_SHIFT


class PageTables(EntryLists):
    """The tables of all address spaces of a guest.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    mmu : Mmu
        How entries are loaded and stored.
    frames : Frames
        Where tables come from.
    levels : int
        Of the guest's tables, 2 (32-bit paging), 3 (PAE), 4 or 5.
    costs : Cost
        Cycles of the kernel's work.
    invalidate : callable
        Makes CPUs forget a large page that was split: a vCPU, the root, first and last address, and the page's order.
    kernel_half : KernelHalf, optional
        What the upper half of every address space maps; None: that half is a program's like the other.
    """

    def __init__(
        self,
        memory: Words,
        mmu: Mmu,
        frames: Frames,
        *,
        levels: int,
        costs: Cost,
        invalidate: Invalidate,
        kernel_half: KernelHalf | None = None,
    ) -> None:
        self.memory = memory
        self.invalidate = invalidate
        self.kernel_half = kernel_half
        self.end = reach(levels) // (2 if kernel_half else 1)  # of what programs map
        self.mmu = mmu
        self.frames = frames
        self.levels = levels
        self.width: int = width_of(levels)  # bits of an address that each table translates
        self.backing = mmu.backing
        self.table_cycles = costs.table_page + costs.zero_page
        self._walk = np.empty(5, np.int64), np.empty(5, np.int64)
        self._scan = np.empty((4, ROOM), np.int64)

    def span(self, level: int) -> int:
        """Return the bytes that an entry of `level` translates."""
        return 1 << (PAGE_SHIFT + self.width * (level - 1))

    def places(self, table: int, gvas: Words, level: int) -> Words:
        """Return where in a table of `level` the entries for `gvas` lie, int64[n]."""
        return np.asarray(entry_at(table, gvas, level, self.width))

    def new_root(self, vcpu: Vcpu) -> Steps[int]:
        """Return the gpa of a new, empty root table."""
        frame = yield from self.frames.allocate_table(vcpu)
        root = frame << PAGE_SHIFT
        yield from self.mmu.clear(vcpu, root, 0, table=True)
        if self.levels == 3:
            yield from self._make_directories(vcpu, root)
        if self.kernel_half:
            yield from self.kernel_half.enter(vcpu, self.frames, root)
        return root

    def expect_program(self, gva: int) -> None:
        """Refuse an address that is the kernel's own.

        Raises
        ------
        VmStopped
            It is.
        """
        if self.kernel_half and gva >= self.end:
            raise VmStopped(Stop.KERNEL_HALF, address=gva)

    def _make_directories(self, vcpu: Vcpu, root: int) -> Steps[None]:
        """Give a PAE root its four page directories, for good.

        Processors may keep its entries in registers until CR3 is loaded again (Linux arch/x86/mm/pgtable.c,
        PREALLOCATED_PMDS).
        """
        places = root + 8 * np.arange(4)
        entries = np.empty(4, np.int64)
        for number, place in enumerate(places):
            frame = yield from self.frames.allocate_table(vcpu)
            vcpu.owe("guest_fault", self.table_cycles)
            yield from self.mmu.clear(vcpu, frame << PAGE_SHIFT, 0, table=True)
            self.frames.frames["rmap"][frame] = place
            entries[number] = frame << PAGE_SHIFT | PRESENT  # it has no rights to give
        yield from self.mmu.write(vcpu, places, entries)

    def map_at_once(self, root: int, gva: int, level: int, page: int, bits: int) -> bool:
        """Map a page as `map` does, if nothing traps and no table is missing: nearly always, on hardware."""
        if self.mmu.traps:
            return False
        where = root, self.levels, level, self.backing, gva & -self.span(level)
        return bool(map_page(self.memory, self.frames.frames, *where, page, bits) == 0)

    def map(self, vcpu: Vcpu, root: int, gva: int, level: int, page: int, bits: int) -> Steps[bool]:
        """Map a page by an entry of `level`, and make the tables that are missing.

        Returns
        -------
        bool
            False if something is mapped there already, or smaller pages stand where the large one would go; or if an
            entry leads to a table beyond the guest's memory, which whoever looks for what is mapped then finds.
        """
        gva &= -self.span(level)
        if self.mmu.traps:
            place = yield from self._vacant(vcpu, root, gva, level)
            if place is None:
                return False
            self.frames.frames["rmap"][page] = place[0]
            entry = page << PAGE_SHIFT | bits | (LARGE if level > 1 else 0)
            yield from self.mmu.write(vcpu, place, np.array([entry]))
            return True
        where = root, self.levels, level, self.backing, gva
        tables: list[int] = []
        while True:
            missing = map_page(self.memory, self.frames.frames, *where, page, bits)
            if missing == NOWHERE:
                if not (yield from self._bring_back(vcpu, root, gva, level)):
                    return False
            elif missing <= 0:
                self.frames.give_tables(np.array(tables, np.int64))
                return bool(missing == 0)
            elif len(tables) < missing:
                tables.append((yield from self.frames.allocate_table(vcpu)))
                vcpu.owe("guest_fault", self.table_cycles)
            elif not (yield from self.frames.ensure(vcpu, np.array(tables))):  # else the world may have changed
                made = np.array(tables)
                map_pages(self.memory, self.frames.frames, *where, np.array([page]), made, TABLE_BITS, bits)
                self.frames.give_tables(made[missing:])
                return True

    def _bring_back(self, vcpu: Vcpu, root: int, gva: int, level: int) -> Steps[bool]:
        """Have the host back the table on the way to `gva` that lies nowhere; False where no memory is there at all."""
        count = walk_entries(self.memory, root, self.levels, level, self.backing, gva, *self._walk)
        place = int(self._walk[0][-1 - count])
        if count >= 0:
            return True
        if place >> PAGE_SHIFT >= len(self.backing):
            return False
        yield from self.frames.ensure(vcpu, np.array([place >> PAGE_SHIFT]))
        return True

    def _vacant(self, vcpu: Vcpu, root: int, gva: int, level: int) -> Steps[Words | None]:
        """Return the place of the absent entry of `level` for `gva`, int64[1], its table made if need be; or None."""
        if not self.mmu.loads_trap:
            places, values = yield from self._descend(vcpu, root, gva, level)
            if values[-1] or len(places) > self.levels - level:
                return None if values[-1] else places[-1:]
        table = yield from self.table(vcpu, root, gva, level)
        if table is None:
            return None
        place = np.array([entry_at(table, gva, level, self.width)])
        if self.mmu.loads_trap and (yield from self.mmu.read(vcpu, place))[0]:
            return None
        return place

    def table(self, vcpu: Vcpu, root: int, gva: int, level: int, known: Places | None = None) -> Steps[int | None]:
        """Return the gpa of the table of `level` that translates `gva`, made if it is missing; None if it cannot be.

        Entries at the places (gpas) in `known` are not loaded again; those that are loaded or stored join them.
        """
        if level == self.levels:
            return root
        places, values = yield from self._descend(vcpu, root, gva, level + 1, known)
        if values[-1]:
            return None if values[-1] & LARGE else int(values[-1]) & FRAME
        at, place = self.levels - len(places) + 1, int(places[-1])
        links, made = [], []
        while at > level:
            frame = yield from self.frames.allocate_table(vcpu)
            vcpu.owe("guest_fault", self.table_cycles)
            yield from self.mmu.clear(vcpu, frame << PAGE_SHIFT, 0, table=True)
            self.frames.frames["rmap"][frame] = place
            links.append(place)
            made.append(frame << PAGE_SHIFT | TABLE_BITS)
            at -= 1
            place = int(entry_at(frame << PAGE_SHIFT, gva, at, self.width))
        yield from self.mmu.write(vcpu, np.array(links), np.array(made))
        if known is not None:
            known.update(links)
        return made[-1] & FRAME

    def find(self, vcpu: Vcpu, root: int, gva: int) -> Steps[Entry]:
        """Return the entry that maps `gva`, or the absent one where the tables end."""
        places, values = yield from self._descend(vcpu, root, gva, 1)
        return Entry(self.levels - len(places) + 1, int(places[-1]), int(values[-1]))

    def frames_of(self, vcpu: Vcpu, root: int, address: int, length: int) -> Steps[Words]:
        """Return the frames that hold [address, address + length) as far as it is mapped, int64[n]; nothing traps."""
        found = []
        for gva in range(address & -(1 << PAGE_SHIFT), address + length, 1 << PAGE_SHIFT):
            count = -1
            while count < 0:
                count = walk_entries(self.memory, root, self.levels, 1, self.backing, gva, *self._walk)
                if count < 0 and not (yield from self._bring_back(vcpu, root, gva, 1)):
                    break
            if count > 0 and (value := int(self._walk[1][count - 1])):
                entry = Entry(self.levels - count + 1, 0, value)
                found.append(entry.first + (gva % self.span(entry.level) >> PAGE_SHIFT))
        return np.array(found, np.int64)

    def write(self, vcpu: Vcpu, entries: Entries, values: Words) -> Steps[None]:
        """Store new values of entries."""
        if len(values):
            yield from self.mmu.write(vcpu, entries.places, values)

    def set(self, vcpu: Vcpu, place: int, value: int) -> Steps[None]:
        """Store one entry."""
        yield from self.mmu.write(vcpu, np.array([place]), np.array([value]))

    def split(self, vcpu: Vcpu, root: int, gva: int, level: int) -> Steps[None]:
        """Split the large page at `gva`, if there is one, until an entry of `level` or below maps it."""
        while True:
            entry = yield from self.find(vcpu, root, gva)
            if entry.value == 0 or entry.level <= level:
                return
            first, smaller = entry.first, entry.level - 1
            bits = entry.value & ~FRAME & (~LARGE if smaller == 1 else -1)
            frame = yield from self.frames.allocate_table(vcpu)
            vcpu.owe("guest_fault", self.table_cycles)
            table = frame << PAGE_SHIFT
            yield from self.mmu.clear(vcpu, table, 0, table=True)
            start, parts = gva & -self.span(entry.level), np.arange(1 << self.width)
            places = self.places(table, start + parts * self.span(smaller), smaller)
            pages = first + (parts << self.width * (smaller - 1))
            yield from self.mmu.write(vcpu, places, pages << PAGE_SHIFT | bits)
            known = self.frames.frames["rmap"][first] != 0
            self.frames.frames["rmap"][pages] = np.where(known, places, 0)
            self.frames.frames["rmap"][frame] = entry.place
            yield from self.set(vcpu, entry.place, table | TABLE_BITS)
            order = self.width * (entry.level - 1)
            yield from self.invalidate(vcpu, root, start, start + self.span(entry.level) - 1, order)

    def _descend(
        self, vcpu: Vcpu, root: int, gva: int, level: int, known: Places | None = None
    ) -> Steps[tuple[Words, Words]]:
        """Load the entries on the way to `gva`, down to `level` or as far as tables go; return places and values.

        Raises
        ------
        VmStopped
            An entry leads to a table beyond the guest's memory.
        """
        places, values = self._walk
        while (count := walk_entries(self.memory, root, self.levels, level, self.backing, gva, places, values)) < 0:
            if not (yield from self._bring_back(vcpu, root, gva, level)):
                raise VmStopped(Stop.BEYOND_MEMORY, address=int(places[-1 - count]))
        places, values = places[:count].copy(), values[:count].copy()
        if self.mmu.loads_trap:
            new = np.array([known is None or place not in known for place in places.tolist()])
            if new.any():
                values[new] = yield from self.mmu.read(vcpu, places[new])
            if known is not None:
                known.update(places.tolist())
        return places, values
