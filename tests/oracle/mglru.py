"""Linux's multi-generational LRU in plain Python, from mm/vmscan.c (6.6), for memory without pages of files.

Generations are dicts of lists by their full number; the kernel's rings and truncated numbers are not needed. The newest
page of a generation is the first of its list. Accessed flags are the caller's: `young` says whether a page was
accessed, and forgets it. One walk looks at tables of `TABLE` pages; there is one region, of all pages.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2

MIN_NR_GENS, MAX_NR_GENS, MAX_NR_TIERS = 2, 4, 4
MIN_LRU_BATCH, MAX_LRU_BATCH = 64, 4096
TABLE = 512


def order_base_2(number: int) -> int:
    return ceil(log2(number)) if number > 1 else 0


class Lruvec:
    """The generations of one memory (lru_gen_folio)."""

    def __init__(self, size: int, young: Callable[[int], bool], there: Callable[[int], bool]) -> None:
        self.size = size
        self.young = young
        self.there = there
        self.min_seq, self.max_seq = 0, MIN_NR_GENS + 1
        self.lists: dict[int, list[int]] = {seq: [] for seq in range(MAX_NR_GENS)}
        self.gen: dict[int, int] = {}  # what the page's flags say; its list may be another
        self.refs: dict[int, int] = {}  # folio_lru_refs
        self.filter: set[int] | None = None  # tables for the next walk; None: no filter, all pass
        self.refaulted = [0] * MAX_NR_TIERS
        self.evicted = [0] * MAX_NR_TIERS
        self.protected = [0] * MAX_NR_TIERS
        self.avg_refaulted = [0] * MAX_NR_TIERS
        self.avg_total = [0] * MAX_NR_TIERS

    # lru_gen_add_folio of an active page
    def add(self, page: int, refs: int = 0) -> None:
        self.remove(page)
        self.gen[page] = self.max_seq
        self.refs[page] = refs
        self.lists[self.max_seq].insert(0, page)

    def remove(self, page: int) -> None:
        if page in self.gen:
            del self.gen[page]
            for pages in self.lists.values():
                if page in pages:
                    pages.remove(page)

    def nr_pages(self, seq: int) -> int:
        return sum(each == seq for each in self.gen.values())

    # the PID controller
    def reset_ctrl_pos(self) -> None:
        for tier in range(MAX_NR_TIERS):
            self.avg_refaulted[tier] = (self.avg_refaulted[tier] + self.refaulted[tier]) // 2
            total = self.avg_total[tier] + self.evicted[tier] + (self.protected[tier] if tier else 0)
            self.avg_total[tier] = total // 2
            self.refaulted[tier] = self.evicted[tier] = self.protected[tier] = 0

    def read_ctrl_pos(self, tier: int) -> tuple[int, int]:
        total = self.avg_total[tier] + self.evicted[tier] + (self.protected[tier] if tier else 0)
        return self.avg_refaulted[tier] + self.refaulted[tier], total

    def get_tier_idx(self) -> int:
        sp_refaulted, sp_total = self.read_ctrl_pos(0)
        tier = 1
        while tier < MAX_NR_TIERS:
            refaulted, total = self.read_ctrl_pos(tier)
            few = refaulted < MIN_LRU_BATCH
            if not (few or refaulted * (sp_total + MIN_LRU_BATCH) * 1 <= (sp_refaulted + 1) * total * 2):
                break
            tier += 1
        return tier - 1

    # the aging
    def try_to_inc_max_seq(self) -> None:
        passed: set[int] = set()
        for table in range((self.size + TABLE - 1) // TABLE):
            if self.filter is not None and table not in self.filter:
                continue
            found, first = 0, table * TABLE
            limit = min(first + TABLE, self.size)
            for page in range(first, limit):
                if page in self.gen and self.there(page) and self.young(page):
                    found += 1
                    self.gen[page], self.refs[page] = self.max_seq, 0
            if found and found * 8 >= limit - first:  # suitable_to_scan, cache lines of eight entries
                passed.add(table)
        for page in [page for page in self.gen if not self.there(page)]:
            self.remove(page)
        self.filter = passed
        if self.max_seq - self.min_seq + 1 == MAX_NR_GENS:  # inc_min_seq
            old = self.lists.pop(self.min_seq)
            while old:
                page = old.pop()
                if self.gen[page] == self.min_seq:
                    self.gen[page], self.refs[page] = self.min_seq + 1, 0
                self.lists[self.gen[page]].append(page)
            self.min_seq += 1
            self.reset_ctrl_pos()
        self.max_seq += 1
        self.lists[self.max_seq] = []

    def should_run_aging(self, priority: int) -> tuple[bool, int]:
        if self.min_seq + MIN_NR_GENS > self.max_seq:
            return True, 0
        old = young = total = 0
        for seq in range(self.min_seq, self.max_seq + 1):
            size = self.nr_pages(seq)
            total += size
            if seq == self.max_seq:
                young += size
            elif seq + MIN_NR_GENS == self.max_seq:
                old += size
        nr_to_scan = total >> priority
        if self.min_seq + MIN_NR_GENS < self.max_seq:
            return False, nr_to_scan
        return young * MIN_NR_GENS > total or old * (MIN_NR_GENS + 2) < total, nr_to_scan

    # the eviction
    def evict_folios(self, taken: list[int]) -> int:
        isolated: list[int] = []
        scanned = 0
        few = self.max_seq - self.min_seq + 1 == MIN_NR_GENS
        if not few:
            tier_idx, head, remaining = self.get_tier_idx(), self.lists[self.min_seq], MAX_LRU_BATCH
            looked = 0
            while head and remaining and len(isolated) < MIN_LRU_BATCH:
                page = head.pop()
                looked += 1
                remaining -= 1
                refs = self.refs[page]
                tier = order_base_2(refs + 1)
                if self.gen[page] != self.min_seq:  # promoted
                    self.lists[self.gen[page]].insert(0, page)
                elif tier > tier_idx or refs == 4:
                    self.protected[tier] += 1
                    self.gen[page], self.refs[page] = self.min_seq + 1, 0
                    self.lists[self.min_seq + 1].append(page)
                else:
                    del self.gen[page]
                    isolated.append(page)
            scanned = looked if isolated or not remaining else 0
        moved = False
        while self.min_seq + MIN_NR_GENS <= self.max_seq and not self.lists[self.min_seq]:  # try_to_inc_min_seq
            del self.lists[self.min_seq]
            self.min_seq += 1
            moved = True
        if moved:
            self.reset_ctrl_pos()
            scanned += 1
        if self.max_seq - self.min_seq + 1 == MIN_NR_GENS:
            scanned = 0
        isolated = [page for page in isolated if self.there(page)]
        flags = {page: self.young(page) for page in isolated}
        for page in isolated:  # shrink_folio_list
            if flags[page]:
                self.add(page)
                self.look_around(page)
            else:
                taken.append(page)
        return scanned

    def look_around(self, page: int) -> None:
        start = page - page % TABLE
        end = min(start + TABLE, self.size)
        if end - start > MIN_LRU_BATCH:
            half = MIN_LRU_BATCH // 2
            if page - start < half:
                end = start + MIN_LRU_BATCH
            elif end - page < half:
                start = end - MIN_LRU_BATCH
            else:
                start, end = page - half, page + half
        young = 1  # the page itself
        for each in range(start, end):
            if each in self.gen and self.there(each) and self.young(each):
                young += 1
                self.gen[each], self.refs[each] = self.max_seq, 0
        if self.filter is not None and young * 8 >= end - start:
            self.filter.add(page // TABLE)

    def try_to_shrink(self, priority: int, goal: int) -> list[int]:
        taken: list[int] = []
        scanned = 0
        while True:
            aging, nr_to_scan = self.should_run_aging(priority)
            if aging and priority < 12:
                self.try_to_inc_max_seq()
                break
            if nr_to_scan <= 0:
                break
            delta = self.evict_folios(taken)
            if not delta:
                break
            scanned += delta
            if scanned >= nr_to_scan or len(taken) >= goal:
                break
        return taken

    # mm/workingset.c
    def evict(self, page: int) -> tuple[int, int]:
        refs = self.refs[page]
        self.evicted[order_base_2(refs + 1)] += 1
        return self.min_seq, refs

    def refault(self, page: int, shadow: tuple[int, int]) -> bool:
        recent = shadow[0] == self.min_seq
        if recent:
            self.refaulted[order_base_2(shadow[1] + 1)] += 1
        self.add(page, 4 if recent else 0)
        return recent
