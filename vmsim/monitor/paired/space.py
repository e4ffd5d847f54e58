"""One address space mapped twice: by a kernel page table (KPT) in x86-64's format and by an EPT, or NPT.

Below the limit (Akaros: UVPT) both hold the same mappings, large pages included; what is above is the kernel's, and the
KPT's alone. The address space of the process is the guest-physical space of the guest in it. What is said of the EPT
is true of NPT too; there the KPT may serve as both (layout `shared`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from vmsim.contracts import Words
from vmsim.frames.buddy import use
from vmsim.frames.records import State
from vmsim.machine.copies import wrote
from vmsim.machine.formats import (
    ACCESSED,
    DIRTY,
    ENTRIES,
    FRAME,
    LARGE,
    PAGE_SHIFT,
    PRESENT,
    USER,
    WRITE,
    NestedFormat,
    reach,
)
from vmsim.machine.memory import clear_frame, entry_at
from vmsim.monitor.paired.layout import NO_EPT, Pair, PairedHost
from vmsim.monitor.paired.mode import Layout
from vmsim.tables.backing import IDENTITY
from vmsim.tables.edit import missing_tables

__all__ = ["UVPT_SLOT", "Pages", "PairedSpace", "beyond", "flags_of", "limit_of", "mirrored", "to_ept"]


UVPT_SLOT: Final = ENTRIES // 2 - 1
"""Entry of the root by which a process reads its own KPT: the last of the lower half."""

_TABLE_BITS = PRESENT | WRITE | USER | ACCESSED


def limit_of(levels: int) -> int:
    """Return the first address that only the KPT maps (UVPT)."""
    return UVPT_SLOT << (3 + 9 * levels)


def to_ept(values: Words, form: NestedFormat, *, table: bool) -> Words:
    """Return the EPTEs that say what KPTEs say: the same frame, size and rights; accessed and dirty are not copied.

    Entries that point to tables (`table`) keep the address: who calls puts the EPT half's in its place.
    """
    flags = form.accessed | form.dirty
    bits = form.table if table else form.page & ~flags
    entries = values & (FRAME | LARGE) | bits & ~WRITE | values & WRITE
    return np.asarray(np.where(values & PRESENT, entries, 0))


def flags_of(eptes: Words, form: NestedFormat) -> Words:
    """Return the flags accessed and dirty of EPTEs, where those of KPTEs are."""
    return np.asarray((eptes & form.accessed != 0) * ACCESSED | (eptes & form.dirty != 0) * DIRTY)


def mirrored(values: Words, before: Words, form: NestedFormat) -> Words:
    """Return the EPTEs of pages whose KPTEs are stored.

    Parameters
    ----------
    values, before : int64[n]
        The KPTEs, and the EPTEs so far: their flags stay where the page does and the KPTE has the flag too.
    form : NestedFormat
        Of EPTEs.
    """
    entries = to_ept(values, form, table=False)
    kept = (values & ACCESSED != 0) * form.accessed | (values & DIRTY != 0) * form.dirty
    same = (entries != 0) & ((before ^ entries) & FRAME == 0)
    return np.asarray(entries | np.where(same, before & kept, 0))


def beyond(done: Counter[str], levels: int) -> Counter[str]:
    """Return what edits of paired tables took, but for a walk of each table edited and a store of each entry.

    Those are in the figures of what has the edits made.
    """
    more = done.copy()
    more["load"] -= levels * more["walks"]
    more["store"] -= more["updates"]
    return more


class Pages(NamedTuple):
    """Entries of a KPT that map pages, by ascending address; int64[n] each."""

    starts: Words  # address of the page
    levels: Words  # 1, 2, 3: a page of 4K, 2M, 1G
    places: Words  # hpa of the entry
    values: Words

    @property
    def frames(self) -> Words:
        """First frame of each page."""
        return np.asarray((self.values & FRAME) >> PAGE_SHIFT)

    @classmethod
    def of(cls, parts: Iterable[Pages]) -> Pages:
        """Return several lists as one."""
        columns = zip(*(cls(*(np.empty(0, np.int64),) * 4), *parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))


class _Run(NamedTuple):
    """Neighbouring leaf entries of one table."""

    address: int
    level: int
    place: int  # hpa of the first KPTE
    pages: int


class PairedSpace:
    """KPT and EPT of one process.

    Parameters
    ----------
    shared : PairedHost
        What all processes of the host share.
    form : NestedFormat
        Of the EPT.
    owner : int
        Number of the process: owner of its frames.
    levels : int
        Of both tables, 4 or 5.
    layout : {"contiguous", "pointer", "separate", "shared"}
        Where the halves lie.
    guest : bool
        The process is a VM.
    whole : bool, optional
        The KPT is a process's that has no kernel half: all of it is mapped twice, and the reverse map names KPTEs.

    Attributes
    ----------
    kpt, ept : int
        hpa of each root; `ept` is 0 where there is no second tree.
    tables : int
        Tables, the root included, both halves counted as one.
    work : Counter
        Steps so far, by the names of `paired_layout.figures`, and the updates that took them.
    """

    def __init__(
        self,
        shared: PairedHost,
        form: NestedFormat,
        *,
        owner: int,
        levels: int,
        layout: Layout,
        guest: bool,
        whole: bool = False,
    ) -> None:
        self.shared = shared
        self.memory = shared.memory
        self.frames = shared.host.frames
        self.form = form
        self.owner = owner
        self.levels = levels
        self.layout: Layout = layout
        self.guest = guest
        self.whole = whole
        self.limit = reach(levels) if whole else limit_of(levels)
        self._slots = ENTRIES if whole else UVPT_SLOT  # of the root that both tables have
        self.kpt = self.ept = 0
        self.tables = 0
        self.work: Counter[str] = Counter()

    def install(self, root: Pair) -> None:
        """Make the roots of the frames `root`: empty below the limit, the kernel's boot mappings above it."""
        self._clear(root)
        self.kpt, self.ept = (frame << PAGE_SHIFT for frame in root)
        boot = self.shared.boot[0] << 9
        upper = slice(ENTRIES // 2, ENTRIES)
        self._table(self.kpt)[upper] = self.memory[boot : boot + ENTRIES][upper]
        self._table(self.kpt)[UVPT_SLOT] = self.kpt | PRESENT | USER

    def missing(self, address: int, level: int) -> int:
        """Return how many tables are missing before `address` can be mapped at `level`; else MAPPED or BLOCKED."""
        return int(missing_tables(self.memory, self.kpt, self.levels, level, IDENTITY, address))

    def map(
        self, address: int, level: int, first: int, tables: list[Pair], *, count: int = 1, write: bool = True
    ) -> None:
        """Map consecutive frames from `first` on, by entries of one table that are all absent.

        Parameters
        ----------
        address : int
            Of the first page, aligned to the size that entries of `level` map.
        first : int
            First frame of the first page.
        tables : list of Pair
            For what is missing; those used are taken off, the first first.
        count : int, optional
            Pages, all in one table.
        write : bool, optional
            They may be written to; else others share them, and no one entry maps them.
        """
        kpt, ept = self._descend(address, level, tables)
        pages = (first + (np.arange(count) << 9 * (level - 1))) << PAGE_SHIFT
        values = pages | PRESENT | WRITE * write | USER | (LARGE if level > 1 else 0)
        self.memory[kpt >> 3 : (kpt >> 3) + count] = values
        wrote(self.memory, kpt + 8 * np.arange(count))
        place = kpt
        if ept:
            self.memory[ept >> 3 : (ept >> 3) + count] = to_ept(values, self.form, table=False)
            wrote(self.memory, ept + 8 * np.arange(count))
            place = ept
        frames = pages >> PAGE_SHIFT
        use(self.frames, frames, int(State.GUEST))
        numbers = (address >> PAGE_SHIFT) + 1 + (np.arange(count) << 9 * (level - 1))  # of the pages of a VM's memory
        if self.whole:
            self.frames["rmap"][frames] = place + 8 * np.arange(count) if write else 0
        else:  # 0 of a frame that several pages lie in, which is the host's; a clean page of its own keeps its place
            self.frames["rmap"][frames] = np.where(self.frames["owner"][frames] == self.owner, numbers, 0)
        self.work["store"] += count * (2 if ept else 1)
        self.work["updates"] += count

    def pages(self, first: int, limit: int) -> Pages:
        """Return the entries of the pages that lie wholly in [first, limit), with the flags of either table.

        Akaros asks both (kern/arch/x86/pmap_ops.h, pte_is_accessed and pte_is_dirty).
        """
        return Pages.of(self._look(run)[0] for run in self._runs(first, limit))

    def unmap(self, first: int, limit: int) -> Pages:
        """Unmap the pages that lie wholly in [first, limit); return their entries as `pages` does. Tables stay."""
        gone = self.protect(first, limit, lambda pages: np.zeros_like(pages.values))
        if self.whole:
            self.frames["rmap"][gone.frames] = 0
        return gone

    def protect(self, first: int, limit: int, new: Callable[[Pages], Words]) -> Pages:
        """Give the entries of the pages that lie wholly in [first, limit) new values, table by table.

        The flags that hardware has set in an EPTE stay as long as the KPTE keeps them.

        Returns
        -------
        Pages
            The entries as they were, as `pages` returns them.
        """
        seen = []
        for run in self._runs(first, limit):
            pages, kpt, ept = self._look(run)
            if not len(pages.values):
                continue
            self._found(kpt, ept)
            values = new(pages)
            self.memory[pages.places >> 3] = values
            wrote(self.memory, pages.places)
            if ept:
                twins = (ept + pages.places - kpt) >> 3
                self.memory[twins] = mirrored(values, self.memory[twins], self.form)
                wrote(self.memory, twins << 3)
            self.work["store"] += len(values) * (2 if ept else 1)
            self.work["updates"] += len(values)
            seen.append(pages)
        return Pages.of(seen)

    def become_guest(self, frames: list[int]) -> dict[int, int]:
        """Make the process a VM. In separate trees the EPT is made now, of `frames`, as many as there are tables.

        Returns
        -------
        dict
            The frame of each new EPT table by that of its KPT table.
        """
        self.guest = True
        made: dict[int, int] = {}
        if self.layout == "separate" and not self.ept:
            self.ept = self._mirror(self.kpt, self.levels, frames, made) << PAGE_SHIFT
        return made

    def halves(self) -> list[Pair]:
        """Return the frames of every table, the root's last."""
        found: list[Pair] = []
        self._list(self.kpt, self.ept, self.levels, found)
        return found

    def _clear(self, pair: Pair) -> None:
        for frame in pair:
            if frame != NO_EPT:
                clear_frame(self.memory, frame << PAGE_SHIFT)
        use(self.frames, np.array([frame for frame in pair if frame != NO_EPT]), int(State.TABLE))
        self.tables += 1

    def _table(self, table: int) -> Words:
        return self.memory[table >> 3 : (table >> 3) + ENTRIES]

    def _entries(self, place: int, count: int) -> Words:
        return self.memory[place >> 3 : (place >> 3) + count].copy()

    def _descend(self, address: int, level: int, tables: list[Pair]) -> Pair:
        """Return the places of KPTE and EPTE of `address` (EPTE 0: there is none); make the tables that are missing."""
        kpt, ept = self.kpt, self.ept
        for at in range(self.levels, level, -1):
            place, upper = int(entry_at(kpt, address, at)), int(entry_at(ept, address, at)) if ept else 0
            if not self.memory[place >> 3]:
                pair = tables.pop(0)
                self._clear(pair)
                self._link(place, pair[0], _TABLE_BITS)
                if upper:
                    self._link(upper, pair[1], self.form.table)
            kpt = int(self.memory[place >> 3]) & FRAME
            ept = int(self.memory[upper >> 3]) & FRAME if upper else 0
        self._found(kpt, ept)
        return int(entry_at(kpt, address, level)), int(entry_at(ept, address, level)) if ept else 0

    def _link(self, place: int, frame: int, bits: int) -> None:
        self.memory[place >> 3] = frame << PAGE_SHIFT | bits
        wrote(self.memory, np.array([place]))
        self.frames["rmap"][frame] = place
        self.work["store"] += 1

    def _found(self, kpt: int, ept: int) -> None:
        """Count what an update does to reach its entries: a walk, and a second, an addition or a dereference."""
        self.work["walks"] += 1
        self.work["load"] += self.levels
        if ept and self.layout == "separate":
            self.work["load"] += self.levels
        elif ept and self.layout == "pointer":
            self.work["dereference"] += 1

    def _runs(self, first: int, limit: int) -> Iterator[_Run]:
        """Yield the leaf entries whose pages lie in [first, limit), table by table."""
        address = first
        while address < limit:
            table = self.kpt
            for level in range(self.levels, 0, -1):
                place = int(entry_at(table, address, level))
                entry = int(self.memory[place >> 3])
                span = 1 << (3 + 9 * level)
                if level == 1 or entry == 0 or entry & LARGE:
                    break
                table = entry & FRAME
            if level > 1:
                start = address & -span
                if entry and first <= start and start + span <= limit:
                    yield _Run(start, level, place, 1)
                address = start + span
                continue
            end = min(limit, (address & -(ENTRIES << PAGE_SHIFT)) + (ENTRIES << PAGE_SHIFT))
            yield _Run(address, 1, place, end - address >> PAGE_SHIFT)
            address = end

    def _look(self, run: _Run) -> tuple[Pages, int, int]:
        """Return what a run maps, and the places of the first KPTE and EPTE of its table (EPTE 0: there is none)."""
        kpt, ept = self.kpt, self.ept
        for at in range(self.levels, run.level, -1):
            kpt = int(self.memory[int(entry_at(kpt, run.address, at)) >> 3]) & FRAME
            ept = int(self.memory[int(entry_at(ept, run.address, at)) >> 3]) & FRAME if ept else 0
        which = (run.place - kpt >> 3) + np.flatnonzero(self._entries(run.place, run.pages))
        values = self.memory[(kpt >> 3) + which]
        if ept:
            values = values | flags_of(self.memory[(ept >> 3) + which], self.form)
        first = run.address - ((run.place - kpt >> 3) << 3 + 9 * run.level)
        starts = first + (which << 3 + 9 * run.level)
        return Pages(starts, np.full(len(which), run.level), kpt + 8 * which, values), kpt, ept

    def _mirror(self, table: int, level: int, frames: list[int], made: dict[int, int]) -> int:
        """Return the frame of a new EPT table that says what the KPT table at hpa `table` does."""
        frame = made[table >> PAGE_SHIFT] = frames.pop()
        use(self.frames, np.array([frame]), int(State.TABLE))
        values = self._table(table).copy()
        if level == self.levels:
            values[self._slots :] = 0
        leaf = (values & LARGE != 0) | (level == 1)
        entries = to_ept(values, self.form, table=False)
        for index in np.flatnonzero(~leaf & (values != 0)).tolist():
            below = self._mirror(int(values[index]) & FRAME, level - 1, frames, made)
            entries[index] = below << PAGE_SHIFT | self.form.table
            self.frames["rmap"][below] = (frame << PAGE_SHIFT) + 8 * index
        self.memory[frame << 9 : (frame + 1) << 9] = entries
        self.work.update(load=ENTRIES, store=int(np.count_nonzero(entries)), table=1, zero=1)
        return frame

    def _list(self, kpt: int, ept: int, level: int, found: list[Pair]) -> None:
        values = self._table(kpt)[: self._slots if level == self.levels else ENTRIES]
        if level > 1:
            for index in np.flatnonzero((values != 0) & (values & LARGE == 0)).tolist():
                below = int(self._table(ept)[index]) & FRAME if ept else 0
                self._list(int(values[index]) & FRAME, below, level - 1, found)
        found.append((kpt >> PAGE_SHIFT, ept >> PAGE_SHIFT))
