"""The monitor's own TLB: translations that its software walks have found (plex86)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

__all__ = ["SoftwareTlb", "total"]


class SoftwareTlb:
    """A fully associative LRU cache of pages that the monitor has walked to; it holds nothing with 0 entries.

    Parameters
    ----------
    entries : int
        How many pages it remembers.
    hit_cycles : int
        What a look-up costs that hits.
    """

    def __init__(self, entries: int, *, hit_cycles: int) -> None:
        self.entries = entries
        self.hits = 0
        self.misses = 0
        self.saved_cycles = 0
        self._hit_cycles = hit_cycles
        self._pages: OrderedDict[int, None] = OrderedDict()

    def cycles(self, page: int, walk_cycles: int) -> int:
        """Return what finding a page costs now, the cycles of a walk if it is not there; from now on it is."""
        if not self.entries:
            self.misses += 1
            return walk_cycles
        if page in self._pages:
            self._pages.move_to_end(page)
            self.hits += 1
            self.saved_cycles += walk_cycles - self._hit_cycles
            return self._hit_cycles
        self.misses += 1
        self._pages[page] = None
        if len(self._pages) > self.entries:
            self._pages.popitem(last=False)
        return walk_cycles

    def drop(self, page: int, count: int) -> None:
        """Forget `count` pages from `page` on."""
        for each in [held for held in self._pages if page <= held < page + count]:
            del self._pages[each]

    def flush(self) -> None:
        """Forget all: CR3 was loaded."""
        self._pages.clear()


def total(tlbs: Iterable[SoftwareTlb]) -> dict[str, int]:
    """Return what all of them have counted."""
    each = [*tlbs]
    return {name: sum(getattr(tlb, name) for tlb in each) for name in ("hits", "misses", "saved_cycles")}
