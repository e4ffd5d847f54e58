"""A kernel's page cache: pages of files that programs read and write by system calls (Linux mm/filemap.c).

A page belongs to a file, and has its place in it. What is not there is read from the disk, with others ahead of the
program; what is written stays in memory, dirty, until the kernel writes it (`vmsim.guest.writeback`). A program that
writes while too much is dirty waits for the disk (mm/page-writeback.c, balance_dirty_pages; the pauses by which Linux
slows it down before are left out).

The kernel copies between the cache and the program's buffer; the accesses to the buffer are the program's in the
stream. What data pages hold is not simulated, but each write to a page has a number, which goes to the disk with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import simpy

from vmsim.base.clock import Clock
from vmsim.contracts import Disk, Frames, PageObserver, Steps, Vcpu, Words
from vmsim.guest.cached_pages import INDEX_BITS, CachedPage, CachedPages
from vmsim.guest.readahead import ReadAhead, Window
from vmsim.machine.formats import PAGE_SHIFT, PRESENT
from vmsim.scenario.cpu import Cost
from vmsim.scenario.files import FilesSpec
from vmsim.tables.backing import SHARED

__all__ = ["FILES", "PageCache"]

FILES = "files"  # the cause of the time that the kernel uses for them
_IO_WAIT = "io_wait"
_PAGE = 1 << PAGE_SHIFT
_COUNTED = (
    "reads",
    "writes",
    "hits",
    "misses",
    "read_in",
    "read_ahead",
    "written_back",
    "dropped",
    "evicted",
    "throttled",
)


class _Nobody:
    def added(self, gfn: int, key: int) -> None:
        """Learn nothing."""

    def used(self, gfn: int) -> None:
        """Learn nothing."""

    def removed(self, gfn: int) -> None:
        """Learn nothing."""


class PageCache(CachedPages):
    """The page cache of one kernel.

    Parameters
    ----------
    env : Clock
        Simulated time.
    spec : FilesSpec
        What it is told.
    costs : Cost
        What its steps take.
    frames : Frames
        Where its pages come from.
    backing : int64[:]
        Where guest memory lies; empty if that is the host's own.
    disk : Disk
        Where the files are.
    dirtied : callable
        Called when the kernel is to begin to write.

    Attributes
    ----------
    counts : Counter
        `reads` and `writes` of pages by programs; `hits` and `misses`; pages `read_in`, and of these `read_ahead`;
        `written_back`; `dropped` because a program has said so, and `evicted`; `throttled`, waits of those who write.
    observer : PageObserver
        Who keeps its pages in an order.
    progress : Event
        Triggered the next time that the disk has written something.
    """

    def __init__(
        self,
        env: Clock,
        spec: FilesSpec,
        costs: Cost,
        *,
        frames: Frames,
        backing: Words,
        disk: Disk,
        dirtied: Callable[[], None],
    ) -> None:
        super().__init__()
        self.env = env
        self.spec = spec
        self.costs = costs
        self.frames = frames
        self.backing = backing
        self.disk = disk
        self.dirtied = dirtied
        self.counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
        self.observer: PageObserver = _Nobody()
        self._sizes: dict[int, int] = {}  # bytes
        self._opened: set[int] = set()
        self._trails: dict[int, ReadAhead] = {}
        self.progress = env.event()

    # ---- what programs ask for

    def open(self, vcpu: Vcpu, file: int, size: int) -> None:
        """Learn how large a file is; one that nobody opens is as large as it is read or written."""
        vcpu.owe(FILES, self.costs.file_call)
        self._opened.add(file)
        self._sizes[file] = max(self._sizes.get(file, 0), size)

    def read(self, vcpu: Vcpu, file: int, offset: int, length: int) -> Steps[None]:
        """Read: copy from the cache, and have read what is not there."""
        vcpu.owe(FILES, self.costs.file_call)
        end = offset + length
        if file in self._opened:
            end = min(end, self._sizes[file])
        else:
            self._sizes[file] = max(self._sizes.get(file, 0), end)
        trail = self._trails.setdefault(file, ReadAhead(self.spec.read_ahead))
        limit = -(-end >> PAGE_SHIFT)
        for index in range(offset >> PAGE_SHIFT, limit):
            page = yield from self._get(vcpu, file, index, limit - index, trail)
            yield from self._copy(vcpu, page, _bytes_of(index, offset, end), write=False)
            self.counts["reads"] += 1
            if index != trail.previous:
                self.observer.used(page.gfn)
            trail.previous = index
            page.users -= 1
            if vcpu.left <= 0:
                yield vcpu.settle()

    def write(self, vcpu: Vcpu, file: int, offset: int, length: int) -> Steps[None]:
        """Write: copy to the cache; of a page that is written in part the rest is read first."""
        vcpu.owe(FILES, self.costs.file_call)
        end, size = offset + length, self._sizes.get(file, 0)
        self._sizes[file] = max(size, end)
        for index in range(offset >> PAGE_SHIFT, -(-end >> PAGE_SHIFT)):
            part = _bytes_of(index, offset, end)
            if part == _PAGE or index << PAGE_SHIFT >= size:
                yield from self._make(vcpu, file, index)
            page = yield from self._get(vcpu, file, index, 1, None)
            yield from self._copy(vcpu, page, part, write=True)
            self.counts["writes"] += 1
            self._soil(page, self.env.cycle)
            self.observer.used(page.gfn)
            page.users -= 1
            yield from self._balance(vcpu)
            if vcpu.left <= 0:
                yield vcpu.settle()

    def drop(self, vcpu: Vcpu, file: int, offset: int, length: int) -> Steps[None]:
        """Drop pages that lie wholly in a range, but for those that are dirty, which are written (POSIX_FADV_DONTNEED).

        No length stands for all to the end of the file (mm/fadvise.c, generic_fadvise).
        """
        vcpu.owe(FILES, self.costs.file_call)
        end = offset + length if length else self._sizes.get(file, 0) + _PAGE
        found = [*self._within(file, -(-offset >> PAGE_SHIFT), end >> PAGE_SHIFT)]
        yield from self.write_out(vcpu, [page for page in found if page.dirty >= 0 and not page.writing])
        gone = [page for page in found if page.idle and self.pages.get(page.key) is page]
        for page in gone:
            self.observer.removed(page.gfn)
            self._forget(page)
        self.counts["dropped"] += len(gone)
        vcpu.owe(FILES, self.costs.file_page * len(found))
        self.frames.give(np.array([page.gfn for page in gone], np.int64), 0)

    def sync(self, vcpu: Vcpu, file: int) -> Steps[None]:
        """Fsync: wait until the disk has all that was written to a file."""
        vcpu.owe(FILES, self.costs.file_call)
        while True:
            yield from self.write_out(vcpu, self.oldest(len(self.dirty), file=file))
            if not any(page.writing and page.file == file for page in self.pages.values()):
                return
            yield from vcpu.wait(self.progress, _IO_WAIT)

    # ---- what the kernel does with it

    def write_out(self, vcpu: Vcpu, pages: Sequence[CachedPage]) -> Steps[None]:
        """Have the disk write dirty pages; nobody waits."""
        pages = [page for page in pages if page.dirty >= 0 and not page.writing]
        if not pages:
            return
        for page in pages:
            page.writing = True
        self.writing += len(pages)
        gfns, versions = np.array([page.gfn for page in pages]), list[int]()
        try:
            yield from self.frames.ensure(vcpu, gfns)
            vcpu.owe(FILES, self.costs.file_page * len(pages))
            versions += [self._begin_writing(page) for page in pages]
            done = yield from self.disk.write(vcpu, [page.key for page in pages], gfns)
        except BaseException:  # the VM ends; who waits for the disk is to go on, and end too
            for page in pages:
                page.writing = False
            self.writing -= len(pages)
            self._progressed()
            raise
        assert done.callbacks is not None
        done.callbacks.append(partial(self._was_written, pages, versions))

    def evict(self, gfn: int) -> bool:
        """Forget the page in a frame, which is the caller's then; return False where it must stay."""
        page = self.owners[gfn]
        if not page.idle:
            return False
        self._forget(page)
        self.counts["evicted"] += 1
        return True

    def move(self, page: CachedPage, gfn: int) -> None:
        """Have a page lie in another frame, which the host has backed (mm/migrate.c, filemap_migrate_folio)."""
        self.observer.removed(page.gfn)
        del self.owners[page.gfn]
        page.gfn = gfn
        self.owners[gfn] = page
        self.frames.frames["rmap"][gfn] = 0
        self.observer.added(gfn, page.key)

    @property
    def over_background(self) -> bool:
        """Whether so much is dirty that the kernel writes until it is less."""
        return len(self.dirty) > self._share(self.spec.background)

    # ---- parts

    def _share(self, percent: int) -> int:
        """Return a share of the memory that may be dirty: what is free, and the cache (global_dirtyable_memory)."""
        return (self.frames.free + len(self.pages)) * percent // 100

    def _balance(self, vcpu: Vcpu) -> Steps[None]:
        """Have dirty pages written where there are many, and wait where there are too many."""
        if self.over_background:
            self.dirtied()
        while (waits := len(self.dirty) + self.writing) and waits > self._share(self.spec.ratio):
            self.counts["throttled"] += 1
            self.dirtied()
            yield from vcpu.wait(self.progress, _IO_WAIT)

    def _get(self, vcpu: Vcpu, file: int, index: int, wanted: int, trail: ReadAhead | None) -> Steps[CachedPage]:
        """Return a page, read if it was not there, with one user more: it stays until that is taken back."""
        key, hit = file << INDEX_BITS | index, True
        while True:
            page = self.pages.get(key)
            if page is None:
                self.counts["misses"] += hit
                hit = False
                window = trail.miss(index, wanted) if trail else Window(index, 1, -1)
                yield from self._read_in(vcpu, file, window, index)
                continue
            page.users += 1
            if page.ready is None:
                break
            yield from vcpu.wait(page.ready, _IO_WAIT)
            page.users -= 1
        self.counts["hits"] += hit
        if page.marked:
            page.marked = False
            if trail and (following := trail.reached(index, wanted)):
                yield from self._read_in(vcpu, file, following, -1)
        return page

    def _read_in(self, vcpu: Vcpu, file: int, window: Window, wanted: int) -> Steps[None]:
        """Have pages of a file read; but for the one that is `wanted` only while there is memory."""
        limit = max(-(-self._sizes[file] >> PAGE_SHIFT), wanted + 1)
        ready, found, ahead = self.env.event(), list[CachedPage](), 0
        try:
            for index in range(window.first, min(window.first + window.pages, limit)):
                if file << INDEX_BITS | index in self.pages:
                    continue
                if index != wanted and self.frames.short:
                    if index > wanted:
                        break
                    continue
                page = yield from self._add(vcpu, file, index)
                if page:
                    page.ready = ready
                    page.marked = index == window.marked
                    found.append(page)
                    ahead += index != wanted
            if not found:
                return
            gfns = np.array([page.gfn for page in found])
            yield from self.frames.ensure(vcpu, gfns)
            vcpu.owe(FILES, self.costs.file_page * len(found))
            done = yield from self.disk.read(vcpu, [page.key for page in found], gfns)
        except BaseException:
            for page in found:
                self._forget(page)
            ready.succeed()
            raise
        assert done.callbacks is not None
        done.callbacks.append(partial(self._was_read, found, ready))
        self.counts["read_in"] += len(found)
        self.counts["read_ahead"] += ahead

    def _make(self, vcpu: Vcpu, file: int, index: int) -> Steps[None]:
        """Have a page that is about to be written to as a whole, or that the file has not yet."""
        if file << INDEX_BITS | index not in self.pages:
            yield from self._add(vcpu, file, index)

    def _add(self, vcpu: Vcpu, file: int, index: int) -> Steps[CachedPage | None]:
        """Put a new page in the cache; None: another vCPU has been faster."""
        gfn = yield from self.frames.allocate_cached(vcpu)
        key = file << INDEX_BITS | index
        if key in self.pages:
            self.frames.give(np.array([gfn]), 0)
            return None
        page = CachedPage(file, index, gfn)
        self._enter(page)
        self.frames.frames["rmap"][gfn] = 0
        self.observer.added(gfn, key)
        return page

    def _copy(self, vcpu: Vcpu, page: CachedPage, part: int, *, write: bool) -> Steps[None]:
        """Copy so many bytes of a page, for which its frame must be there."""
        if len(self.backing) and not self.backing[page.gfn] & (PRESENT if write else PRESENT | SHARED):
            yield from self.frames.ensure(vcpu, np.array([page.gfn]))
        vcpu.owe(FILES, self.costs.file_page + (self.costs.copy_page * part >> PAGE_SHIFT))

    def _was_read(self, pages: Sequence[CachedPage], ready: simpy.Event, _: simpy.Event) -> None:
        for page in pages:
            page.version = self.stored.get(page.key, 0)
            page.ready = None
        ready.succeed()

    def _was_written(self, pages: Sequence[CachedPage], versions: Sequence[int], _: simpy.Event) -> None:
        for page, version in zip(pages, versions, strict=True):
            self._end_writing(page, version)
        self.counts["written_back"] += len(pages)
        self._progressed()

    def _progressed(self) -> None:
        done, self.progress = self.progress, self.env.event()
        done.succeed()


def _bytes_of(index: int, offset: int, end: int) -> int:
    """Return how many of the bytes [offset, end) lie in a page."""
    start = index << PAGE_SHIFT
    return min(end, start + _PAGE) - max(offset, start)
