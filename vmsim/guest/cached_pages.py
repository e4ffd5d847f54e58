"""The pages of a kernel's page cache: where each belongs, which are dirty, and which write each holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import simpy

__all__ = ["INDEX_BITS", "CachedPage", "CachedPages"]

INDEX_BITS = 28  # of a page's number in a file of 1 TiB


class CachedPage:
    """A page in the cache.

    Attributes
    ----------
    file, index, gfn : int
        Its file, its place there in pages, and its frame.
    ready : Event or None
        It is being read until then.
    dirty : int
        The cycle since when the disk has not what it holds; -1: it has.
    writing : bool
        The disk is at work on it.
    marked : bool
        Whoever reads it has the pages behind it read ahead.
    users : int
        Who is at work on it, so that it must stay.
    version : int
        Number of the last write to it.
    """

    __slots__ = ("dirty", "file", "gfn", "index", "marked", "ready", "users", "version", "writing")

    def __init__(self, file: int, index: int, gfn: int) -> None:
        self.file, self.index, self.gfn = file, index, gfn
        self.ready: simpy.Event | None = None
        self.dirty = -1
        self.writing = self.marked = False
        self.users = self.version = 0

    @property
    def key(self) -> int:
        """Stand for the file and the place."""
        return self.file << INDEX_BITS | self.index

    @property
    def idle(self) -> bool:
        """Whether it could be dropped: nobody needs it, and the disk has what it holds."""
        return not (self.ready or self.writing or self.users or self.dirty >= 0)


class CachedPages:
    """All pages in the cache.

    Attributes
    ----------
    pages : dict of int to CachedPage
        By `CachedPage.key`.
    owners : dict of int to CachedPage
        By frame.
    dirty : dict of int to CachedPage
        The dirty ones by key, those that have been so for longest first.
    writing : int
        Pages that the disk is at work on.
    written, stored : dict of int to int
        By key, the number of the last write to each page, and of what the disk has.
    """

    def __init__(self) -> None:
        self.pages: dict[int, CachedPage] = {}
        self.owners: dict[int, CachedPage] = {}
        self.dirty: dict[int, CachedPage] = {}
        self.writing = 0
        self.written: dict[int, int] = {}
        self.stored: dict[int, int] = {}
        self._number = 0  # of the last write

    def __len__(self) -> int:
        return len(self.pages)

    def oldest(self, most: int, *, before: int = 1 << 62, file: int = -1) -> list[CachedPage]:
        """Return up to `most` pages that have been dirty for longest and are not being written, by their place.

        Parameters
        ----------
        most : int
            How many.
        before : int, optional
            The cycle before which they have become dirty.
        file : int, optional
            Of this file alone.
        """
        wanted = (
            page
            for page in self.dirty.values()
            if page.dirty < before and not page.writing and (file < 0 or page.file == file)
        )
        return sorted(islice(wanted, most), key=lambda page: page.key)

    def lost(self) -> Iterator[str]:
        """Yield which pages do not hold what was last written to them, where they are: in memory or on the disk."""
        for key, number in self.written.items():
            page = self.pages.get(key)
            found = self.stored.get(key, 0) if page is None or page.ready else page.version
            if found != number:
                file, index = key >> INDEX_BITS, key & (1 << INDEX_BITS) - 1
                yield f"page {index} of file {file} holds write {found}, and the last one to it was {number}"

    def _within(self, file: int, first: int, limit: int) -> Iterator[CachedPage]:
        """Yield the pages of a file in [first, limit)."""
        if limit - first < len(self.pages):
            keys = range(file << INDEX_BITS | first, file << INDEX_BITS | max(limit, first))
            yield from (self.pages[key] for key in keys if key in self.pages)
        else:
            yield from (page for page in self.pages.values() if page.file == file and first <= page.index < limit)

    def _enter(self, page: CachedPage) -> None:
        self.pages[page.key] = self.owners[page.gfn] = page

    def _forget(self, page: CachedPage) -> None:
        del self.pages[page.key]
        del self.owners[page.gfn]

    def _soil(self, page: CachedPage, now: int) -> None:
        """Note one more write to a page."""
        self._number += 1
        page.version = self.written[page.key] = self._number
        if page.dirty < 0:
            page.dirty = now
            self.dirty[page.key] = page

    def _begin_writing(self, page: CachedPage) -> int:
        """Note that the disk gets what a page holds now; return which write that is."""
        page.dirty = -1
        del self.dirty[page.key]
        return page.version

    def _end_writing(self, page: CachedPage, version: int) -> None:
        page.writing = False
        self.writing -= 1
        self.stored[page.key] = version
