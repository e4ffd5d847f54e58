"""Linux's two lists in plain Python, from mm/vmscan.c and mm/workingset.c (6.8), for memory without pages of files.

One list a memory; the oldest page is the last of each. Accessed flags are the caller's: `young` says which pages were
accessed, and forgets it of a page when it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isqrt

BATCH = 32


class Lists:
    """The lists of one memory (lruvec)."""

    def __init__(self) -> None:
        self.inactive: list[int] = []
        self.active: list[int] = []
        self.referenced: set[int] = set()

    def add(self, page: int) -> None:
        """Add a new page (folio_add_lru_vma)."""
        self.inactive.insert(0, page)

    @property
    def low(self) -> bool:
        return is_low(len(self.inactive), len(self.active))


def is_low(inactive: int, active: int) -> bool:
    gib = (inactive + active) * 4096 >> 30
    return inactive * (isqrt(10 * gib) if gib else 1) < active


class Host:
    """All lists of a host, and what refaults need."""

    def __init__(self, young: Callable[[int, int], bool]) -> None:
        self.memories: dict[int, Lists] = {}
        self.young = young  # of a memory's page; forgets it
        self.nonresident_age = 0
        self.activated = 0
        self.shadows: dict[int, int] = {}
        self.seen = 0
        self.may_deactivate = True

    def begin(self) -> None:
        inactive = sum(len(each.inactive) for each in self.memories.values())
        active = sum(len(each.active) for each in self.memories.values())
        self.may_deactivate = self.activated != self.seen or is_low(inactive, active)

    def end(self) -> None:
        self.seen = self.activated

    def shrink(self, owner: int, priority: int, goal: int) -> list[int]:
        """shrink_lruvec: return the pages that are reclaimed."""
        lists = self.memories[owner]
        inactive, active = len(lists.inactive) >> priority, len(lists.active) >> priority
        taken: list[int] = []
        while inactive:
            some = min(inactive, BATCH)
            inactive -= some
            taken += self.shrink_inactive(owner, some)
            if active:
                some = min(active, BATCH)
                active -= some
                if self.may_deactivate:
                    self.shrink_active(owner, some)
            if len(taken) >= goal:
                break
        if lists.low:
            self.shrink_active(owner, BATCH)
        return taken

    def shrink_inactive(self, owner: int, count: int) -> list[int]:
        lists, taken = self.memories[owner], []
        isolated = [lists.inactive.pop() for _ in range(min(count, len(lists.inactive)))]
        for page in isolated:
            was_referenced = page in lists.referenced
            lists.referenced.discard(page)
            if not self.young(owner, page):
                taken.append(page)
                continue
            lists.referenced.add(page)
            if was_referenced:
                lists.active.insert(0, page)
            else:
                lists.inactive.insert(0, page)
        return taken

    def shrink_active(self, owner: int, count: int) -> None:
        lists = self.memories[owner]
        for page in [lists.active.pop() for _ in range(min(count, len(lists.active)))]:
            self.young(owner, page)
            lists.inactive.insert(0, page)

    def use(self, owner: int, page: int) -> None:
        """mark_page_accessed, of a page that no entry maps: the second time it becomes active."""
        lists = self.memories[owner]
        if page not in lists.inactive and page not in lists.active:
            return
        if page not in lists.referenced:
            lists.referenced.add(page)
        elif page in lists.inactive:
            lists.inactive.remove(page)
            lists.active.insert(0, page)
            lists.referenced.discard(page)
            self.nonresident_age += 1

    def evict(self, slot: int) -> None:
        """workingset_eviction: the shadow is the age when the page went."""
        self.nonresident_age += 1
        self.shadows[slot] = self.nonresident_age

    def refault(self, owner: int, page: int, slot: int) -> None:
        """workingset_refault: active at once where the distance is within what is active."""
        distance = self.nonresident_age - self.shadows[slot]
        lists = self.memories[owner]
        if distance <= sum(len(each.active) for each in self.memories.values()):
            lists.active.insert(0, page)
            self.nonresident_age += 1
            self.activated += 1
        else:
            lists.inactive.insert(0, page)


def fill(lists: Lists, pages: Iterable[int]) -> None:
    for page in pages:
        lists.add(page)
