"""A buddy allocator as a set of free blocks: which blocks exist is told by the rules, not by the lists' order.

Blocks are grouped by mobility as in Linux's mm/page_alloc.c: an allocation takes the smallest fitting block of its own
kind; if there is none, it breaks up the largest of the other kind, and whole pageblocks of that change sides.
"""

from __future__ import annotations


class Buddy:
    """`size` frames from `first` on; free blocks are (frame, order), aligned to 2**order frames, as large as can be."""

    def __init__(self, size: int, max_order: int, pageblock: int, first: int = 0) -> None:
        self.max_order = max_order
        self.pageblock = pageblock
        self.free: set[tuple[int, int]] = set()
        self.unmovable: set[int] = set()  # numbers of pageblocks
        self.taken: dict[int, int] = {}  # first frame: order
        for pfn in range(first, first + size):
            self._give(pfn, 0)

    def _give(self, pfn: int, order: int) -> None:
        while order < self.max_order and (pfn ^ 1 << order, order) in self.free:
            self.free.remove((pfn ^ 1 << order, order))
            pfn &= ~(1 << order)
            order += 1
        self.free.add((pfn, order))

    def is_unmovable(self, pfn: int) -> bool:
        return pfn >> self.pageblock in self.unmovable

    def source(self, order: int, unmovable: bool) -> tuple[int, bool] | None:
        """Return the order of the block that an allocation breaks up and whether it is of the other kind.

        What begins at frame 0 is no table's (unmovable) unless there is nothing else.
        """
        free = {each for each in self.free if each[1] >= order}
        if unmovable and order < self.pageblock and len(free) > 1:
            free.discard((0, order))
        own = [found for pfn, found in free if self.is_unmovable(pfn) == unmovable]
        other = [found for pfn, found in free if self.is_unmovable(pfn) != unmovable]
        if own:
            return min(own), False
        return (max(other), True) if other else None

    def take(self, pfn: int, order: int, unmovable: bool) -> None:
        """Note that the block at `pfn` was handed out, from a block that the rules allow."""
        source = self.source(order, unmovable)
        assert source is not None, "nothing was left to hand out"
        found, stolen = source
        start = pfn & ~((1 << found) - 1)
        assert (start, found) in self.free, "the block handed out is not a free one of the right size"
        assert self.is_unmovable(start) == (unmovable != stolen), "the block handed out is of the wrong kind"
        assert pfn % (1 << order) == 0, "a block is aligned to its size"
        self.free.remove((start, found))
        changed = max(order, self.pageblock)
        if stolen and found >= self.pageblock:
            blocks = range(pfn >> changed << changed - self.pageblock, (pfn >> changed) + 1 << changed - self.pageblock)
            (self.unmovable.update if unmovable else self.unmovable.difference_update)(blocks)
        while found > order:
            found -= 1
            self.free.add(((pfn & ~((1 << found) - 1)) ^ 1 << found, found))
        self.taken[pfn] = order

    def give(self, pfn: int) -> int:
        """Take a block back; return its order."""
        order = self.taken.pop(pfn)
        self._give(pfn, order)
        return order
