"""A page cache in plain Python: what a kernel reads, keeps and writes, where each step is over before the next.

Written from Linux's mm/readahead.c (ondemand_readahead without its look back), mm/filemap.c and mm/fadvise.c.
"""

from __future__ import annotations

from collections import Counter

PAGE = 4096


class Trail:
    """struct file_ra_state."""

    def __init__(self) -> None:
        self.start = self.size = self.async_size = 0
        self.prev = -1


class Cache:
    """Files by number; pages by (file, index)."""

    def __init__(self, ra_pages: int) -> None:
        self.ra_pages = ra_pages
        self.sizes: dict[int, int] = {}
        self.opened: set[int] = set()
        self.held: dict[tuple[int, int], int] = {}  # what each page in memory holds
        self.disk: dict[tuple[int, int], int] = {}
        self.dirty: set[tuple[int, int]] = set()
        self.marks: set[tuple[int, int]] = set()
        self.trails: dict[int, Trail] = {}
        self.counts: Counter[str] = Counter()
        self.last = 0

    def open(self, file: int, size: int) -> None:
        self.opened.add(file)
        self.sizes[file] = max(size, self.sizes.get(file, 0))

    def bring(self, file: int, first: int, count: int, wanted: int, mark: int) -> None:
        pages = max(-(-self.sizes[file] // PAGE), wanted + 1)
        fresh = [index for index in range(first, min(first + count, pages)) if (file, index) not in self.held]
        for index in fresh:
            self.held[file, index] = self.disk.get((file, index), 0)
            self.counts["read_ahead"] += index != wanted
            if index == mark:
                self.marks.add((file, index))
        self.counts["read_in"] += len(fresh)
        self.counts["requests"] += bool(fresh)

    def ondemand(self, file: int, index: int, req: int, *, hit: bool) -> None:
        ra = self.trails.setdefault(file, Trail())
        if self.ra_pages == 0:
            if not hit:
                self.bring(file, index, req, index, -1)
            return
        most = max(self.ra_pages, req)
        expected = index in (ra.start + ra.size - ra.async_size, ra.start + ra.size)
        if index and ra.size and (expected if not hit else index == ra.start + ra.size - ra.async_size):
            ra.start, ra.size = ra.start + ra.size, self.following(ra.size, most)
            ra.async_size = ra.size
        elif hit:
            ra.start, ra.size = index + 1, self.following(req, most)
            ra.async_size = ra.size
        elif index == 0 or req > self.ra_pages or 0 <= index - ra.prev <= 1:
            ra.start, ra.size = index, self.initial(req, most)
            ra.async_size = ra.size - req if ra.size > req else ra.size
        else:
            self.bring(file, index, req, index, -1)
            return
        if index == ra.start and ra.size == ra.async_size:
            more = self.following(ra.size, most)
            if ra.size + more <= most:
                ra.async_size, ra.size = more, ra.size + more
            else:
                ra.size, ra.async_size = most, most // 2
        mark = ra.start + ra.size - ra.async_size if ra.async_size else -1
        self.bring(file, ra.start, ra.size, -1 if hit else index, mark)

    @staticmethod
    def initial(req: int, most: int) -> int:
        size = 1
        while size < req:
            size *= 2
        return size * 4 if size <= most // 32 else size * 2 if size <= most // 4 else most

    @staticmethod
    def following(size: int, most: int) -> int:
        return size * 4 if size < most // 16 else size * 2 if size <= most // 2 else most

    def read(self, file: int, offset: int, length: int) -> None:
        end = offset + length
        if file in self.opened:
            end = min(end, self.sizes[file])
        else:
            self.sizes[file] = max(self.sizes.get(file, 0), end)
        limit = -(-end // PAGE)
        for index in range(offset // PAGE, limit):
            self.touch(file, index, limit - index)
            self.counts["reads"] += 1
            self.trails.setdefault(file, Trail()).prev = index

    def touch(self, file: int, index: int, req: int) -> None:
        if (file, index) in self.held:
            self.counts["hits"] += 1
        else:
            self.counts["misses"] += 1
            self.ondemand(file, index, req, hit=False)
        if (file, index) in self.marks:
            self.marks.discard((file, index))
            self.ondemand(file, index, req, hit=True)

    def write(self, file: int, offset: int, length: int) -> None:
        size, end = self.sizes.get(file, 0), offset + length
        self.sizes[file] = max(size, end)
        for index in range(offset // PAGE, -(-end // PAGE)):
            part = min(end, (index + 1) * PAGE) - max(offset, index * PAGE)
            if (file, index) not in self.held:
                if part == PAGE or index * PAGE >= size:
                    self.counts["hits"] += 1  # made, and found then
                    self.held[file, index] = 0
                else:
                    self.counts["misses"] += 1
                    self.bring(file, index, 1, index, -1)
            else:
                self.counts["hits"] += 1
                self.marks.discard((file, index))
            self.last += 1
            self.held[file, index] = self.last
            self.dirty.add((file, index))
            self.counts["writes"] += 1

    def flush(self, pages: set[tuple[int, int]]) -> None:
        self.counts["written_back"] += len(pages)
        self.counts["requests"] += bool(pages)
        for page in pages:
            self.disk[page] = self.held[page]
        self.dirty -= pages

    def drop(self, file: int, offset: int, length: int) -> None:
        end = offset + length if length else self.sizes.get(file, 0) + PAGE
        inside = {page for page in self.held if page[0] == file and -(-offset // PAGE) <= page[1] < end // PAGE}
        gone = inside - self.dirty
        self.flush(inside & self.dirty)
        for page in gone:
            del self.held[page]
            self.marks.discard(page)
        self.counts["dropped"] += len(gone)

    def sync(self, file: int) -> None:
        self.flush({page for page in self.dirty if page[0] == file})
