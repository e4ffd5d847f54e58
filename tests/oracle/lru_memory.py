"""A memory of so many frames under LRU, as plainly as can be: what `vmsim.workloads.lru_stack` is to agree with."""

from __future__ import annotations

from collections import OrderedDict


class LruMemory:
    """Pages in `frames` frames; the page used least recently makes room, where no frame is free."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.pages: OrderedDict[int, None] = OrderedDict()
        self.hits = 0

    def use(self, page: int, count: int) -> None:
        if page in self.pages:
            self.pages.move_to_end(page)
            self.hits += count
            return
        if len(self.pages) == self.frames:
            self.pages.popitem(last=False)
        self.pages[page] = None
        self.hits += count - 1

    def forget(self, first: int, pages: int) -> None:
        """Free the frames of so many pages."""
        for page in [page for page in self.pages if first <= page < first + pages]:
            del self.pages[page]

    def rename(self, source: int, target: int, pages: int) -> None:
        """Call pages otherwise; their frames stay, and their order."""
        self.forget(target, pages)
        names = {page: page + target - source if source <= page < source + pages else page for page in self.pages}
        self.pages = OrderedDict((names[page], None) for page in self.pages)
