"""A buddy allocator as a set of free blocks: which blocks exist is told by the rules, not by the lists' order."""

from __future__ import annotations


class Buddy:
    """`size` frames; free blocks are (first frame, order), aligned to 2**order frames, as large as they can be."""

    def __init__(self, size: int, max_order: int) -> None:
        self.size = size
        self.max_order = max_order
        self.free: set[tuple[int, int]] = set()
        self.taken: dict[int, int] = {}  # first frame: order
        for pfn in range(size):
            self._give(pfn, 0)

    def _give(self, pfn: int, order: int) -> None:
        while order < self.max_order and (pfn ^ 1 << order, order) in self.free:
            self.free.remove((pfn ^ 1 << order, order))
            pfn &= ~(1 << order)
            order += 1
        self.free.add((pfn, order))

    def smallest(self, order: int) -> int | None:
        """Return the order of the block that an allocation splits: the smallest that is large enough."""
        return min((found for _, found in self.free if found >= order), default=None)

    def take(self, pfn: int, order: int) -> None:
        """Note that the block at `pfn` was handed out: it must lie in a free block of the smallest fitting order."""
        found = self.smallest(order)
        assert found is not None, "nothing was left to hand out"
        block = (pfn & ~((1 << found) - 1), found)
        assert block in self.free, f"{block} is not the smallest fitting free block"
        assert pfn % (1 << order) == 0, "a block is aligned to its size"
        self.free.remove(block)
        start, _ = block
        while found > order:
            found -= 1
            keep = pfn & ~((1 << found) - 1)
            self.free.add((keep ^ 1 << found, found))
        assert start <= pfn
        self.taken[pfn] = order

    def give(self, pfn: int) -> int:
        """Take a block back; return its order."""
        order = self.taken.pop(pfn)
        self._give(pfn, order)
        return order
