"""How a guest's kernel moves pages of its programs and files to other frames (Linux, mm/migrate.c).

Page tables, pages of the kernel's own, pages that a device works on or that are being written, and pages that several
processes map after a fork (Linux moves these) stay where they are; so does what is locked just then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Vcpu, Words
from vmsim.frames.buddy import use
from vmsim.frames.records import State
from vmsim.guest.edits import PageTables
from vmsim.guest.frames import GuestFrames
from vmsim.guest.page_cache import PageCache
from vmsim.guest.program_pages import ProgramPages, maps_small
from vmsim.guest.spaces import Space
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT
from vmsim.scenario.cpu import Cost

__all__ = ["PageMover"]

_CLUSTER = 32  # pages that are moved together (COMPACT_CLUSTER_MAX)


class PageMover(ABC):
    """Moves pages of one kernel's programs and files, to where who asks says.

    Parameters
    ----------
    pages : ProgramPages
        Those of programs.
    frames : GuestFrames
        The kernel's allocator.
    tables : PageTables
        Of all its address spaces.
    costs : Cost
        What its steps take.
    cause : str
        Of the time that vCPUs use for it.
    cache : PageCache or None
        The pages of files.
    pinned : callable
        Whether a device works on a guest frame.

    Attributes
    ----------
    counts : Counter
        Pages `moved`, large ones `moved_large` or `split`, among others.
    """

    def __init__(
        self,
        pages: ProgramPages,
        frames: GuestFrames,
        tables: PageTables,
        costs: Cost,
        *,
        cause: str,
        cache: PageCache | None,
        pinned: Callable[[int], bool],
    ) -> None:
        self.pages = pages
        self.frames = frames
        self.tables = tables
        self.mmu = tables.mmu
        self.costs = costs
        self.cause = cause
        self.cache = cache
        self.pinned = pinned
        self.counts: Counter[str] = Counter()

    @abstractmethod
    def _find(self, most: int, order: int) -> Words:
        """Take up to so many blocks of 2**order frames to which pages may go, int64[n]."""

    @abstractmethod
    def _keep(self, gfns: Words) -> None:
        """Have frames that nobody uses any more."""

    def _in_files(self, gfns: Words) -> NDArray[np.bool_]:
        owners = self.cache.owners if self.cache else {}
        found = [owners.get(gfn) for gfn in gfns.tolist()]
        return np.array([bool(page and not (page.ready or page.writing or page.users)) for page in found], np.bool_)

    def _in_large(self, gfns: Words) -> NDArray[np.bool_]:
        """Return which frames lie in what may be a large page of one entry, bool[n]."""
        heads = gfns & -self._large
        records = self.frames.frames
        there = (records["rmap"][heads] > 0) & (records["state"][heads] == State.GUEST)
        return np.asarray(there & ~self.pages.holds_each(heads))

    @property
    def _large(self) -> int:
        """Frames of a large page."""
        return 1 << self.tables.width

    def _targets(self, vcpu: Vcpu, most: int, order: int = 0) -> Steps[Words]:
        """Return up to so many frames, or large pages, to move to, int64[n], which the host has backed."""
        found = self._find(most, order)
        for gfn in found.tolist():
            yield from self.frames.bring(vcpu, gfn, order)
            if self.mmu.traps:
                yield from self.mmu.clear(vcpu, gfn << PAGE_SHIFT, order, table=False)
        return found

    def _move_programs(self, vcpu: Vcpu, gfns: Words) -> Steps[None]:
        """Move small pages of programs, as far as their spaces are not locked."""
        for space, held, which, numbers in self.pages.by_space(gfns):
            with held:
                for at in range(0, len(which), _CLUSTER):
                    part = slice(at, at + _CLUSTER)
                    yield from self._move_small(vcpu, space, gfns[which[part]], numbers[part])

    def _move_small(self, vcpu: Vcpu, space: Space, gfns: Words, numbers: Words) -> Steps[None]:
        """Move small pages of a space that is locked: unmapped, flushed, copied, mapped."""
        targets = yield from self._targets(vcpu, len(gfns))
        gfns, numbers = gfns[: len(targets)], numbers[: len(targets)]
        places = self.frames.frames["rmap"][gfns].astype(np.int64)
        yield from self.frames.ensure(vcpu, np.unique(places >> PAGE_SHIFT))
        values = yield from self.mmu.read(vcpu, places)
        good = maps_small(values, gfns)
        if not good.all():
            self.frames.give(targets[~good], 0)
            gfns, numbers, places, values, targets = (each[good] for each in (gfns, numbers, places, values, targets))
        if not len(gfns):
            return
        space.unflushed = "pages"
        yield from self.mmu.write(vcpu, places, np.zeros(len(gfns), np.int64))
        self.frames.frames["rmap"][gfns] = 0
        yield from self.pages.flush(vcpu, space, numbers << PAGE_SHIFT)
        space.unflushed = ""
        yield from self._replace(vcpu, gfns, targets, places, values, 0)

    def _replace(
        self, vcpu: Vcpu, gfns: Words, targets: Words, places: Words, values: Words, order: int
    ) -> Steps[None]:
        """Copy pages that nothing maps any more, and have their entries lead to the copies."""
        records, parts = self.frames.frames, np.arange(1 << order)
        every = (gfns[:, None] + parts).ravel()
        yield from self.frames.ensure(vcpu, every)
        each = self.costs.table_page + 2 * self.costs.entry_edit + (self.costs.copy_page << order)
        vcpu.owe(self.cause, each * len(gfns))
        yield from self.mmu.write(vcpu, places, values & ~FRAME | targets << PAGE_SHIFT)
        records["rmap"][targets] = places
        self._keep(every)
        self.counts["moved_large" if order else "moved"] += len(gfns)

    def _move_large(self, vcpu: Vcpu, head: int) -> Steps[None]:
        """Move a large page to a free block, or split it where there is none."""
        place = int(self.frames.frames["rmap"][head])
        root, gva = self._climb(place)
        locked = self.pages.locked(root)
        if locked is None:
            return
        space, held = locked
        size = self._large << PAGE_SHIFT
        with held:
            at = np.array([place])
            yield from self.frames.ensure(vcpu, at >> PAGE_SHIFT)
            values = yield from self.mmu.read(vcpu, at)
            value = int(values[0])
            if not (value & PRESENT and value & LARGE and (value & FRAME) >> PAGE_SHIFT & -self._large == head):
                return
            targets = yield from self._targets(vcpu, 1, self.tables.width)
            if not len(targets):
                yield from self.tables.split(vcpu, root, gva, 1)
                self.counts["split"] += 1
                return
            space.unflushed = "pages"
            yield from self.mmu.write(vcpu, at, np.zeros(1, np.int64))
            self.frames.frames["rmap"][head] = 0
            yield from self.pages.cpus.invalidate(vcpu, space, gva, gva + size - 1, self.tables.width)
            space.unflushed = ""
            yield from self._replace(vcpu, np.array([head]), targets, at, values, self.tables.width)

    def _climb(self, place: int) -> tuple[int, int]:
        """Return the root (gpa) of the space that an entry belongs to, and the gva of what it maps."""
        width, rmap = self.tables.width, self.frames.frames["rmap"]
        size = 4 if width == 10 else 8
        indices = [(place & 0xFFF) // size]
        while up := int(rmap[place >> PAGE_SHIFT]):
            place = up
            indices.append((place & 0xFFF) // size)
        level = self.tables.levels - len(indices)
        number = sum(index << width * (level + above) for above, index in enumerate(indices))
        return place & -(1 << PAGE_SHIFT), number << PAGE_SHIFT

    def _move_cached(self, vcpu: Vcpu, gfn: int) -> Steps[None]:
        """Move a page of the page cache."""
        assert self.cache
        targets = yield from self._targets(vcpu, 1)
        page = self.cache.owners.get(gfn)
        if not len(targets):
            return
        if page is None or page.ready or page.writing or page.users:
            self.frames.give(targets, 0)
            return
        self.cache.move(page, int(targets[0]))
        vcpu.owe(self.cause, self.costs.table_page + self.costs.copy_page)
        self._keep(np.array([gfn]))
        self.counts["moved"] += 1

    def _move_clutter(self, vcpu: Vcpu, gfns: Words) -> Steps[None]:
        """Move pages that the kernel has had since before the start; nobody touches what they hold."""
        for gfn in gfns.tolist():
            targets = self._find(1, 0)
            if not len(targets):
                return
            use(self.frames.frames, targets, int(State.HOST))
            if self.frames.shared:
                yield from self.frames.shared.bring(vcpu, int(targets[0]), 0)
            self.frames.clutter[[gfn, targets[0]]] = False, True
            vcpu.owe(self.cause, self.costs.table_page + self.costs.copy_page)
            self._keep(np.array([gfn]))
            self.counts["moved"] += 1
