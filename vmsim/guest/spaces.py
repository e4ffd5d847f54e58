"""Address spaces of a guest: ranges unmapped and protected, spaces copied (fork) and destroyed (exit, exec)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Frames, Steps, Vcpu
from vmsim.guest.edits import PageTables
from vmsim.guest.lists import Entries
from vmsim.guest.locks import Lock
from vmsim.guest.operations import FLUSH_CEILING
from vmsim.guest.regions import FILE, NOT_FORKED, SHARED, WIPED, Regions
from vmsim.guest.regions import WRITE as WRITABLE
from vmsim.guest.sharing import Sharing
from vmsim.machine.formats import ACCESSED, DIRTY, FRAME, PAGE_SHIFT, PRESENT, WRITE
from vmsim.scenario.cpu import Cost

__all__ = ["AddressSpaces", "Ranges", "Space"]


Columns = tuple[NDArray[np.int64], ...]  # as of `Entries`


@dataclass(eq=False, slots=True)
class Space:
    """One address space.

    Attributes
    ----------
    root : int
        gpa of the root table.
    regions : Regions
        What has been declared, the heap among it; what is touched outside is mapped readable and writable.
    generation, applied : int
        How often entries were changed that a CPU may have cached (tlb_gen); up to where some CPU has flushed.
    users : int
        Processes that use it: more than one after vfork.
    unflushed : str
        What CPUs may still have cached of entries that are being changed: "pages", "rights", or nothing.
    lock : Lock
        Page faults and what frees single pages read, what changes regions writes (mmap_lock).
    entries : Lock
        Whoever changes entries under a lock for reading writes (the page-table locks, taken as one).
    away : dict
        Of a program on the host itself, by number, the pages that are swapped out, and their slots.
    """

    root: int
    regions: Regions = field(default_factory=Regions)
    generation: int = 0
    applied: int = 0
    unflushed: Literal["", "pages", "rights"] = ""
    users: int = 1
    lock: Lock = field(default_factory=Lock)
    entries: Lock = field(default_factory=Lock)
    away: dict[int, int] = field(default_factory=dict)

    @property
    def stale(self) -> bool:
        """It was edited while no CPU ran it: what processors have cached of it may be wrong."""
        return self.applied != self.generation


class Ranges(Protocol):
    """Who edits whole ranges of an address space that has more tables than those that the kernel knows of.

    The entries come back as they were before, as columns of `Entries`, with the flags that any of the tables has.
    """

    def unmap(self, vcpu: Vcpu, root: int, first: int, limit: int) -> Columns:
        """Clear the entries that map pages of [first, limit) in the space with this root."""
        ...

    def protect(
        self, vcpu: Vcpu, root: int, first: int, limit: int, new: Callable[[Columns], NDArray[np.int64]]
    ) -> Columns:
        """Give the entries that map pages of [first, limit) the values that `new` returns for them."""
        ...


class Swapped(Protocol):
    """Who knows which pages of the address spaces of a program on the host itself are swapped out."""

    def bring(self, vcpu: Vcpu, space: Any, number: int, *, write: bool) -> Steps[tuple[int, bool]]:
        """Bring a page of a space back; return its frame, or NO_FRAME: it came back meanwhile; and if it is dirty."""
        ...

    def drop(self, space: Any, first: int, limit: int) -> None:
        """Forget the pages of [first, limit), gvas, that are away: they are unmapped."""

    def move(self, space: Any, first: int, limit: int, to: int) -> None:
        """Move the pages of [first, limit), gvas, that are away to `to`."""

    def copy(self, space: Any, child: Any, left_out: Iterable[tuple[int, int]]) -> None:
        """Have a child's space have the pages that are away too, but for some ranges of gvas."""


class Flushes(Protocol):
    """How CPUs are made to forget what they have cached of a space."""

    def invalidate(self, vcpu: Vcpu, space: Space, first: int, last: int, order: int) -> Steps[None]:
        """Make all CPUs forget the pages of [first, last], none of them smaller than 2**order pages."""
        ...

    def flush(self, vcpu: Vcpu, space: Space) -> Steps[None]:
        """Make all CPUs forget a space."""
        ...


class AddressSpaces:
    """What a kernel does to whole ranges of an address space; some of it by `ranges`, where there are those."""

    def __init__(
        self,
        tables: PageTables,
        frames: Frames,
        sharing: Sharing,
        costs: Cost,
        *,
        flushes: Flushes,
        large: bool,
        ranges: Ranges | None = None,
    ) -> None:
        self.tables = tables
        self.flushes = flushes
        self.ranges = ranges
        self.mmu = tables.mmu
        self.frames = frames
        self.sharing = sharing
        self.costs = costs
        self.large = large  # whether the kernel maps large pages at all
        self.end = tables.end
        self.swapped: Swapped | None = None

    def unmap(self, vcpu: Vcpu, space: Space, first: int, limit: int) -> Steps[None]:
        """Unmap [first, limit) and free its pages."""
        if self.swapped:
            self.swapped.drop(space, first, limit)
        if self.large:
            yield from self._split_edges(vcpu, space, first, limit)
        space.unflushed = "pages"
        gone = yield from self._clear(vcpu, space, first, limit, every=True)
        yield from self._flush(vcpu, space, gone)
        space.unflushed = ""
        if not gone:
            return
        vcpu.owe("guest_fault", self.costs.unmap_page * sum(len(entries.places) for entries in gone))
        self._free(gone)

    def release_lazily(self, vcpu: Vcpu, space: Space, first: int, limit: int) -> Steps[None]:
        """Let the pages of [first, limit) be freed when memory is short, unless they are written before (MADV_FREE).

        The entries lose their accessed and dirty flags, but for those of pages that others share (Linux mm/madvise.c,
        madvise_free_pte_range). Nothing here takes a guest's pages, so they stay.
        """
        if self.large:
            yield from self._split_edges(vcpu, space, first, limit)
        if self.swapped:
            self.swapped.drop(space, first, limit)
        changed, address, space.unflushed = list[Entries](), first, "rights"
        while address < limit:
            address, seen = yield from self.tables.scan(vcpu, space.root, first, address, limit, every=True)
            used = seen.values & (ACCESSED | DIRTY) != 0
            for level in (1, 2, 3):
                pages = seen.levels == level
                used[pages] &= self.sharing.alone(seen.firsts[pages], self.tables.width * (level - 1))
            seen = seen.of(used & (seen.values & PRESENT != 0))
            vcpu.owe("guest_fault", self.costs.entry_edit * len(seen.places))
            yield from self.tables.write(vcpu, seen, seen.values & ~(ACCESSED | DIRTY))
            changed.append(seen)
        yield from self._flush(vcpu, space, changed)
        space.unflushed = ""

    def move(self, vcpu: Vcpu, space: Space, first: int, limit: int, to: int) -> Steps[None]:
        """Move the pages of [first, limit) to `to`, where nothing is mapped (Linux mm/mremap.c, move_page_tables).

        A large page stays one where its new place is as aligned and no page table is left there, else it is split.
        """
        if self.large:
            yield from self._split_edges(vcpu, space, first, limit)
            yield from self._split_unaligned(vcpu, space, first, limit, to)
        if self.swapped:
            self.swapped.move(space, first, limit, to)
        moved, address, space.unflushed = list[Entries](), first, "pages"
        while address < limit:
            address, seen = yield from self.tables.clear(vcpu, space.root, first, address, limit, every=True)
            if len(seen.places):
                yield from self.tables.place(vcpu, space.root, seen._replace(starts=seen.starts - first + to), set())
                vcpu.owe("guest_fault", 2 * self.costs.entry_edit * len(seen.places))
                moved.append(seen)
        yield from self._flush(vcpu, space, moved)
        space.unflushed = ""

    def protect(self, vcpu: Vcpu, space: Space, first: int, limit: int, rights: int) -> Steps[None]:
        """Give the pages of [first, limit) that are mapped the protection `rights`.

        A page becomes writable at once where no other space maps it, else when it is copied. A page without any right
        keeps its frame in an entry that is not present (Linux _PAGE_PROTNONE). One of a file's that was only read is
        still to be copied, or noted as dirty, when it is written to (mm/mprotect.c, can_change_pte_writable).
        """
        files = [(start, end) for start, end, kind in space.regions.within(first, limit) if kind & FILE]
        if self.large:
            yield from self._split_edges(vcpu, space, first, limit)
        new = partial(self._with, rights=rights, files=files)
        lost, address, space.unflushed = list[Entries](), first, "rights"
        while address < limit:
            if self.ranges:
                where = space.root, first, limit
                seen = Entries(*self.ranges.protect(vcpu, *where, lambda seen: new(Entries(*seen))))
                address, values = limit, new(seen)
            else:
                address, seen = yield from self.tables.scan(vcpu, space.root, first, address, limit, every=True)
                values = new(seen)
                yield from self.tables.write(vcpu, seen, values)
            vcpu.owe("guest_fault", self.costs.entry_edit * len(values))
            lost.append(seen.of(seen.values & ~values & (PRESENT | WRITE) != 0))
        yield from self._flush(vcpu, space, lost)
        space.unflushed = ""

    def copy(self, vcpu: Vcpu, space: Space) -> Steps[Space]:
        """Return a copy that shares every page; neither can write to one before it has been copied.

        The child's entries are not accessed but as dirty as the parent's (Linux copy_present_pte). Those of shared
        mappings stay as they are, and the child has none of them (mm/memory.c, vma_needs_copy), nor of what madvise
        keeps from children (kernel/fork.c, dup_mmap: VM_DONTCOPY, VM_WIPEONFORK).
        """
        child = Space((yield from self.tables.new_root(vcpu)), space.regions.copy())
        vcpu.owe("guest_fault", self.costs.table_page + self.costs.zero_page)
        kept = [region for region in space.regions if region[2] & (SHARED | NOT_FORKED | WIPED)]
        for first, last, kind in kept:
            if kind & NOT_FORKED:
                child.regions.remove(first, last)
        protected, address, known, space.unflushed = False, 0, set[int](), "rights"
        while address < self.end:
            address, seen = yield from self.tables.scan(vcpu, space.root, 0, address, self.end, every=False)
            for first, last, _ in kept:
                seen = seen.of((seen.starts < first) | (seen.starts >= last))
            protected = (yield from self._share(vcpu, seen)) or protected
            vcpu.owe("guest_fault", self.costs.fork_page * len(seen.places))
            copies = seen._replace(values=seen.values & ~(WRITE | ACCESSED))
            yield from self.tables.place(vcpu, child.root, copies, known, fresh=True)
            if vcpu.left <= 0:
                yield vcpu.settle()
        if protected:
            yield from self.flushes.flush(vcpu, space)
        space.unflushed = ""
        if self.swapped:
            self.swapped.copy(space, child, [(first, last) for first, last, _ in kept])
        return child

    def destroy(self, vcpu: Vcpu, space: Space) -> Steps[None]:
        """Clear all entries of a space and free its pages and tables, but for the root."""
        if self.swapped:
            self.swapped.drop(space, 0, self.end)
        space.unflushed = "pages"
        gone = yield from self._clear(vcpu, space, 0, self.end, every=False)
        tables = yield from self.tables.clear_tables(vcpu, space.root, self.end)
        yield from self.flushes.flush(vcpu, space)
        space.unflushed = ""
        pages = sum(len(entries.places) for entries in gone)
        vcpu.owe("guest_fault", self.costs.unmap_page * pages + self.costs.table_page * len(tables))
        self._free(gone)
        self.frames.give_tables(tables)

    def release(self, space: Space, numbers: Iterable[tuple[Vcpu, int]]) -> Steps[None]:
        """Free the root of a destroyed space that is loaded nowhere; `numbers` are its PCIDs by CPU, -1 for none."""
        for vcpu, number in numbers:
            yield from self.mmu.release(vcpu, space.root, number)
        self.frames.give_tables(np.array([space.root >> PAGE_SHIFT]))

    def _with(self, seen: Entries, rights: int, files: list[tuple[int, int]]) -> NDArray[np.int64]:
        """Return entries with other rights, int64[n]; of those of files only the dirty ones become writable."""
        values: NDArray[np.int64] = seen.values & ~(PRESENT | WRITE) | (PRESENT if rights else 0)
        if rights & WRITABLE:
            for level in (1, 2, 3):
                pages = seen.levels == level
                values[pages] |= WRITE * self.sharing.alone(seen.firsts[pages], self.tables.width * (level - 1))
        for start, end in files:
            values[(seen.starts >= start) & (seen.starts < end) & (values & DIRTY == 0)] &= ~WRITE
        return values

    def _share(self, vcpu: Vcpu, seen: Entries) -> Steps[bool]:
        """Have one more space map pages, which nobody may write to any more; return whether somebody could."""
        if not self.mmu.traps:
            return (yield from self.tables.share(vcpu, seen, self.sharing.counts()))
        writable = seen.of(seen.values & WRITE != 0)
        yield from self.tables.write(vcpu, writable, writable.values & ~WRITE)
        for pages, order in self._by_order(seen):
            self.sharing.add(pages, order)
        return bool(len(writable.places))

    def _clear(self, vcpu: Vcpu, space: Space, first: int, limit: int, *, every: bool) -> Steps[list[Entries]]:
        """Clear the entries that map pages; return them as they were."""
        gone, address = [], first
        if self.ranges:
            seen = Entries(*self.ranges.unmap(vcpu, space.root, first, limit))
            return [seen] if len(seen.places) else []
        while address < limit:
            address, seen = yield from self.tables.clear(vcpu, space.root, first, address, limit, every=every)
            if len(seen.places):
                gone.append(seen)
        return gone

    def _free(self, gone: list[Entries]) -> None:
        """Free the frames of pages that were unmapped and that nobody else maps."""
        for entries in gone:
            for pages, order in self._by_order(entries):
                for block, block_order in self.sharing.drop(pages, order):
                    self.frames.give(block, block_order)

    def _flush(self, vcpu: Vcpu, space: Space, changed: list[Entries]) -> Steps[None]:
        """Make the processor forget entries that were cleared or lost a right, as Linux does.

        The range from the first of them to the last is invalidated in strides of the smallest page among them, or all
        of the space is flushed where that takes more than 33 INVLPGs (include/asm-generic/tlb.h, tlb_get_unmap_shift;
        arch/x86/mm/tlb.c, flush_tlb_mm_range: since Linux 4.20).
        """
        changed = [entries for entries in changed if len(entries.starts)]
        if not changed:
            return
        first, end = int(changed[0].starts[0]), changed[-1]
        limit = int(end.starts[-1]) + self.tables.span(int(end.levels[-1]))
        smallest = min(int(entries.levels.min()) for entries in changed) if self.large else 1
        order = self.tables.width * (smallest - 1)
        if limit - first >> PAGE_SHIFT + order > FLUSH_CEILING:
            yield from self.flushes.flush(vcpu, space)
        else:
            yield from self.flushes.invalidate(vcpu, space, first, limit - 1, order)

    def _split_edges(self, vcpu: Vcpu, space: Space, first: int, limit: int) -> Steps[None]:
        """Split the large pages that lie in a range only in part."""
        for edge in (first, limit):
            level = 1 if edge % self.tables.span(2) else 2 if edge % self.tables.span(3) else 3
            if level < 3:
                yield from self.tables.split(vcpu, space.root, edge, level)

    def _split_unaligned(self, vcpu: Vcpu, space: Space, first: int, limit: int, to: int) -> Steps[None]:
        """Split the large pages of a range that cannot be as large at `to`."""
        address = first
        while address < limit:
            entry = yield from self.tables.find(vcpu, space.root, address)
            size = self.tables.span(entry.level)
            if entry.value and entry.level > 1:
                there, level = address - first + to, 1
                if there % size == 0:
                    place = yield from self.tables.find(vcpu, space.root, there)
                    level = entry.level if place.level >= entry.level else 1
                yield from self.tables.split(vcpu, space.root, address, level)
            address = address // size * size + size

    def _by_order(self, entries: Entries) -> list[tuple[NDArray[np.int64], int]]:
        """Return the first frames of the pages of each size, and the size's order."""
        if not self.large:
            return [((entries.values & FRAME) >> PAGE_SHIFT, 0)]
        firsts = entries.firsts
        return [(firsts[entries.levels == level], self.tables.width * (level - 1)) for level in (1, 2, 3)]
