"""Compaction: pages are moved so that what is free comes together (Linux mm/compaction.c, mm/migrate.c).

Whoever wants two frames side by side, and finds none, has some pages moved at once, and pays for it. Whose pages they
are is all the same: those of a VM in any mode or of a program on the host, and those of the page cache; each memory
moves its own pages (`GuestMemory.move`), but for those that a device works on (isolate_migratepages_block leaves pinned
pages too).

Two frames are had by moving one page or two; larger blocks by the two scanners of Linux (frames/scanners.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NO_FLUSH, Flush, Moment, Observe
from vmsim.frames.records import NO_FRAME, PAGEBLOCK, State
from vmsim.frames.scanners import Scanners, has_block
from vmsim.host.memory import HOST, HostMemory
from vmsim.scenario.cpu import Cost

__all__ = ["Compaction"]

_CHUNK = 4096  # frames that are looked at in one go
_NOWHERE = -1

Forget = Callable[[Flush], int]
Words = NDArray[np.int64]


class MovablePages(Protocol):
    """A memory that moves its own pages."""

    owner: int
    words: Words  # physical memory

    def find(self, pfns: Words) -> Words:
        """Return the numbers of the pages in some frames, int64[n]; -1 where there is none that may be moved."""
        ...

    def move(self, number: int, pfn: int) -> Flush:
        """Move a page to the host frame `pfn`; the two frames change hands."""
        ...


class Compaction:
    """Makes blocks of frames by moving pages.

    Parameters
    ----------
    host : HostMemory
        Whose frames.
    observe : callable, optional
        Told of MOVING and MOVED around each compaction.

    Attributes
    ----------
    memories : dict
        By owner, the memory whose pages may be moved, and who has its processors forget a flush, and says how many
        cycles that takes whoever moves.
    done : dict
        By who asked, the steps that it took: `scan`, `copy`, `store`; cycles of `shootdown`; and `compactions` that
        made a block by moving pages, and pages `moved`.
    scanners : Scanners
        Of larger blocks.
    """

    def __init__(self, host: HostMemory, observe: Observe = lambda *_: None) -> None:
        self.host = host
        self.observe = observe
        self.memories: dict[int, tuple[MovablePages, Forget]] = {}
        self.done: dict[int, Counter[str]] = {}
        self.scanners = Scanners(host.zone, host.frames, HOST)
        self._cursor = 0

    def add(self, memory: MovablePages, forget: Forget) -> None:
        """Let the pages of a memory be moved."""
        self.memories[memory.owner] = memory, forget

    def pair(self, owner: int, spare: list[int], work: Counter[str]) -> int | None:
        """Return the first of two frames side by side, made by moving pages to spare frames; None: none can be.

        Parameters
        ----------
        owner : int
            Who asks, and has the spare frames and then the block.
        spare : list of int
            Frames, two at least; those used are taken off.
        work : Counter
            Gets the steps.
        """
        before = work.copy()
        self.observe(Moment.MOVING, None)
        first = self._from_spare(spare, work)
        if first is None:
            first = self._from_others(spare, work)
        self.observe(Moment.MOVED, None)
        done = self.done.setdefault(owner, Counter())
        done.update(work - before)
        done["compactions"] += first is not None and work["moved"] > before["moved"]
        return first

    def compact(self, order: int, costs: Cost, *, direct: bool) -> tuple[bool, int]:
        """Move pages until a block of 2**order frames is free; return whether one is, and the cycles of it.

        Linux: compact_zone. It is put off after failures, for both who waits and kcompactd, as compaction that may
        block is (defer_compaction), which takes the place of the bits by which Linux leaves out single pageblocks.

        Parameters
        ----------
        order : int
            Up to that of a pageblock, 9.
        costs : Cost
            What its steps take.
        direct : bool
            Somebody waits for it: pageblocks with anything that cannot be moved are left alone (skip_on_failure).
        """
        host, scanners = self.host, self.scanners
        if host.free < host.marks.low + (2 << order):  # compaction_suitable, compact_gap
            return False, 0
        if scanners.deferred():
            return False, 0
        before, work = scanners.counts.copy(), Counter[str]()
        scanners.counts["compact_stall" if direct else "compact_daemon_wake"] += 1
        self.observe(Moment.MOVING, None)
        made, again = has_block(host.zone, order), scanners.migrate > 0
        while not made:
            if scanners.met:
                scanners.release()
                scanners.restart()
                if not again:
                    break
                again = False
            self._empty(scanners, work, direct=direct)
            made = has_block(host.zone, order)
        scanners.release()
        made = has_block(host.zone, order)
        self.observe(Moment.MOVED, None)
        if direct:
            scanners.counts["compact_success" if made else "compact_fail"] += 1
        scanners.ended(made=made)
        looked = scanners.counts - before
        work["scan"] = looked["compact_migrate_scanned"] + looked["compact_free_scanned"]
        cycles = work["scan"] * costs.log_scan + work["copy"] * costs.copy_page + work["store"] * costs.violation_entry
        return made, cycles + work["shootdown"]

    def _empty(self, scanners: Scanners, work: Counter[str], *, direct: bool) -> None:
        """Move the pages of the next pageblock away, as far as there are frames for them."""
        block = scanners.migrate
        pfns = scanners.pages(direct=direct)
        if not len(pfns):
            return
        there = self._places(pfns) != _NOWHERE
        there |= np.isin(pfns, np.array([*self.host.shared], np.int64)) & (self.host.pins[pfns] == 0)
        if direct:
            states = self.host.frames["state"][block : block + (1 << PAGEBLOCK)]
            if np.count_nonzero(there) < np.count_nonzero(states != State.FREE):
                return
        freed = []
        for pfn in pfns[there].tolist():
            new = scanners.target()
            if new == NO_FRAME:
                break
            if pfn in self.host.shared:
                self.host.move_shared(next(iter(self.memories.values()))[0].words, pfn, new)
                work.update(copy=1, store=1 + len(self.host.shared.users(new)))
            else:
                self._move(pfn, new, work)
            scanners.counts["pgmigrate_success"] += 1
            freed.append(pfn)
        self.host.give(np.array(freed, np.int64))

    def _from_spare(self, spare: list[int], work: Counter[str]) -> int | None:
        """Return a block one of whose frames, or both, are spare."""
        frames = np.array(spare, np.int64)
        if len(beside := np.flatnonzero(np.isin(frames ^ 1, frames))):
            work["scan"] += int(beside[0]) + 1
            frame = spare[beside[0]]
            spare[:] = [each for each in spare if each | 1 != frame | 1]
            return int(frame) & ~1
        work["scan"] += len(spare)
        if len(movable := np.flatnonzero(self._places(frames ^ 1) != _NOWHERE)):
            frame = spare.pop(int(movable[0]))
            self._move(frame ^ 1, spare.pop(), work)
            return int(frame) & ~1
        return None

    def _from_others(self, spare: list[int], work: Counter[str]) -> int | None:
        """Return a block both of whose frames held pages that can be moved: the next one round the host's memory."""
        size = self.host.size & ~1
        for _ in range(-(-size // _CHUNK) + 1):
            start = self._cursor
            frames = np.arange(start, min(start + _CHUNK, size))
            both = (self._places(frames) != _NOWHERE).reshape(-1, 2).all(axis=1)
            if both.any():
                found = start + 2 * int(np.argmax(both))
                work["scan"] += found + 2 - start
                self._cursor = found
                for old in (found, found + 1):
                    self._move(old, spare.pop(), work)
                return found
            work["scan"] += len(frames)
            self._cursor = (start + _CHUNK) % size if start + _CHUNK < size else 0
        return None

    def _places(self, pfns: Words) -> Words:
        """Return where the pages in some frames are in their memories, int64[n]; -1 where none can be moved."""
        found = np.full(len(pfns), _NOWHERE)
        inside = np.flatnonzero(pfns < self.host.size)
        frames = self.host.frames[pfns[inside]]
        page = (frames["state"] == State.GUEST) | (frames["state"] == State.HOST)
        free_to_go = inside[page & (self.host.pins[pfns[inside]] == 0)]
        owners = self.host.frames["owner"][pfns[free_to_go]]
        for owner in np.unique(owners).tolist():
            if owner in self.memories:
                theirs = free_to_go[owners == owner]
                found[theirs] = self.memories[owner][0].find(pfns[theirs])
        return found

    def _move(self, old: int, new: int, work: Counter[str]) -> None:
        """Move the page in one frame to another; the two change hands."""
        memory, forget = self.memories[int(self.host.frames["owner"][old])]
        (place,) = memory.find(np.array([old])).tolist()
        flush = memory.move(place, new)
        if flush != NO_FLUSH:
            work["shootdown"] += forget(flush)
        work["copy"] += 1
        work["store"] += 1 if flush == NO_FLUSH else 2  # where the host notes it, and the entry that led there
        work["moved"] += 1
