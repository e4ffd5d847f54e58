"""Linux's multi-generational LRU (mm/vmscan.c of 6.6, Documentation/mm/multigen_lru.rst, mm/workingset.c).

Every VM has four generations at most, as a memory cgroup has. A page that is faulted in is of the youngest. *Aging*
walks the tables, makes pages that were accessed pages of the youngest generation, and begins another one. It is due
when the pages of the oldest generations but two have run out, or are few. *Eviction* takes pages from the tail of the
oldest generation that were not accessed since; one that was, when it is looked at, is of the youngest again, and so are
those near it that were (lru_gen_look_around). A table is walked if one in eight of its entries was accessed the last
time, or was found so by an eviction (the kernel keeps them in Bloom filters, which may name too many). A page that
comes back while the generation is the oldest that was so when it went counts as referenced often, and is protected when
it is of the oldest next: its *tier* says how often pages were referenced. Which tiers are protected says a controller
that compares how many of each come back (get_tier_idx).

There are no pages of files on the host. New pages join when their VM is looked at, in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Found, LiveVm
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.policies.generations import (
    LEAST,
    MOST,
    PROTECTED,
    TIERS,
    Count,
    Generations,
    Place,
    advance,
    arrive,
    arrive_each,
    begin_generation,
    drop_each,
    insert,
    insert_each,
    make_generations,
    promote,
    sort_out,
    tier_of,
)

__all__ = ["Mglru", "build"]

Words = NDArray[np.int64]

MIN_BATCH: Final = 64  # pages taken out at a time (MIN_LRU_BATCH)
MAX_BATCH: Final = 4096  # and looked at for it (MAX_LRU_BATCH)
PRIORITY: Final = 12  # at which nothing is aged (DEF_PRIORITY)
_DENSE: Final = 8  # one entry in so many, accessed, and a table is walked again: those of a cache line
_EVERY: Final = 16  # a VM's new pages are looked for after a look at one in so many of its pages
_NOTHING: Final = np.empty(0, np.int64)


class _Shadow(NamedTuple):
    """What is remembered of a page that was taken (pack_shadow)."""

    owner: int
    seq: int  # of the oldest generation
    refs: int


class _Pages:
    """The generations of one VM."""

    def __init__(self, vm: LiveVm) -> None:
        self.vm = vm
        self.memory = vm.pages
        self.lists: Generations = make_generations(self.memory.numbers)
        self.victims = np.empty(MIN_BATCH, np.int64)
        self.due = 0  # pages to look at before new ones are looked for
        self.dense: NDArray[np.bool_] | None = None  # by table: it is walked next time; None: all are
        self.refaulted = np.zeros(TIERS, np.int64)  # pages of each tier that came back, of the oldest generation
        self.evicted = np.zeros(TIERS, np.int64)
        self.avg_refaulted = np.zeros(TIERS, np.int64)
        self.avg_total = np.zeros(TIERS, np.int64)
        self.walked = self.walk_young = self.young = 0  # of a scan
        self.flags = getattr(self.memory.second, "accessed_flags", True)

    def renew(self) -> None:
        """Find new pages, where it is time to."""
        if self.due > 0:
            return
        if (backing := getattr(self.memory, "backing", None)) is not None:
            arrive(self.lists, backing)
        else:
            arrive_each(self.lists, self.memory.present())
        self.due = self.memory.numbers // _EVERY

    @property
    def oldest(self) -> int:
        """The number of the oldest generation."""
        return int(self.lists.seq[Place.MIN])

    @property
    def youngest(self) -> int:
        """The number of the youngest generation."""
        return int(self.lists.seq[Place.MAX])

    @property
    def few(self) -> bool:
        """Whether no generation may be evicted."""
        return self.youngest - self.oldest + 1 == LEAST

    def to_scan(self, priority: int) -> tuple[bool, int]:
        """Return whether aging is due, and how many pages eviction is to look at (should_run_aging)."""
        oldest, youngest, pages = self.oldest, self.youngest, self.lists.pages
        if oldest + LEAST > youngest:
            return True, 0
        total = int(pages.sum())
        young = int(pages[youngest % MOST])
        old = int(pages[(youngest - LEAST) % MOST])
        count = total >> priority
        if oldest + LEAST < youngest:
            return False, count
        return young * LEAST > total or old * (LEAST + 2) < total, count

    def age(self) -> None:
        """Walk tables, and begin another generation (try_to_inc_max_seq)."""
        if self.flags:
            numbers = np.flatnonzero(self.lists.gen)
            there = self.memory.holds_each(numbers)
            if not there.all():
                drop_each(self.lists, numbers[~there])
                numbers = numbers[there]
            tables = self.memory.tables_of(numbers)
            if self.dense is not None:
                walked = self.dense[tables]
                numbers, tables = numbers[walked], tables[walked]
            seen = self._promote(numbers, tables)
            total = self.memory.entries_of(np.arange(len(seen)), seen[:, 0])
            self.dense = (seen[:, 1] * _DENSE >= total) & (seen[:, 1] > 0)
        if begin_generation(self.lists):
            self.carry_over()

    def _promote(self, numbers: Words, tables: Words) -> Words:
        seen = np.zeros((self.memory.tables, 2), np.int64)
        young = self.memory.second.age_each(numbers, clear=True)
        self.walk_young += int(promote(self.lists, numbers, young, tables, seen))
        self.walked += len(numbers)
        return seen

    def carry_over(self) -> None:
        """Take the oldest generation's figures into the average: it is left behind (reset_ctrl_pos)."""
        self.avg_refaulted = (self.avg_refaulted + self.refaulted) // 2
        self.avg_total = (self.avg_total + self.evicted + self.lists.protected) // 2
        self.refaulted[:] = self.evicted[:] = self.lists.protected[:] = 0

    def last_tier(self) -> int:
        """Return the last tier that is not protected (get_tier_idx): of it, and those before, no more come back."""
        refaulted = self.avg_refaulted + self.refaulted
        total = self.avg_total + self.evicted
        total[1:] += self.lists.protected[1:]
        tier = 1
        while tier < TIERS:
            bad = int(refaulted[tier])
            good = int(refaulted[0]) + 1
            if bad >= MIN_BATCH and bad * (int(total[0]) + MIN_BATCH) > good * int(total[tier]) * 2:
                break
            tier += 1
        return tier - 1

    def evict(self, taken: list[Words]) -> int:
        """Take pages out of the oldest generation, add to `taken` those to be taken; return how many it was a look at.

        0: there is no use in going on (evict_folios).
        """
        looked = found = 0
        if not self.few:
            looked, found = map(int, sort_out(self.lists, self.last_tier(), MAX_BATCH, MIN_BATCH, self.victims))
        self.due -= looked
        scanned = looked if found or looked == MAX_BATCH else 0
        if advance(self.lists):
            self.carry_over()
            scanned += 1
        if self.few:
            scanned = 0
        if found:
            taken.append(self._judge(self.victims[:found].copy()))
        return scanned

    def _judge(self, numbers: Words) -> Words:
        """Return those of some pages that were not accessed; the others are of the youngest generation again."""
        numbers = numbers[self.memory.holds_each(numbers)]
        young = self.memory.second.age_each(numbers, clear=True)
        self.young += int(np.count_nonzero(young))
        place = self.youngest % MOST
        for number in numbers[young].tolist():
            insert(self.lists, number, place, 0)
            if self.flags:
                self._look_around(number)
        return np.asarray(numbers[~young])

    def _look_around(self, number: int) -> None:
        """Find pages near one that were accessed too (lru_gen_look_around)."""
        near = self.memory.around(number, MIN_BATCH)
        entries = len(near)
        near = near[self.lists.gen[near] > 0]
        near = near[self.memory.holds_each(near)]
        tables = self.memory.tables_of(near)
        before = self.walk_young
        self._promote(near, tables)
        if self.dense is not None and (self.walk_young - before + 1) * _DENSE >= entries:
            self.dense[self.memory.tables_of(np.array([number]))] = True


class Mglru:
    """The generations of all VMs.

    Attributes
    ----------
    rotates : bool
        A reclaim goes from VM to VM until enough is taken, and the next begins behind the last.
    """

    rotates = True
    ages = False  # but as a part of scanning

    def __init__(self) -> None:
        self.pages: dict[int, _Pages] = {}
        self.aged = self.refaults = self.recent = 0
        self._shadows: dict[int, _Shadow] = {}

    @property
    def counts(self) -> dict[str, int]:
        """What was done, and found."""
        total = sum((each.lists.counts for each in self.pages.values()), np.zeros(Count.SIZE, np.int64))
        return {
            "scanned": int(total[Count.SCANNED]),
            "promoted": int(total[Count.PROMOTED]),
            "protected": int(total[Count.PROTECTED]),
            "aged": self.aged,
            "refaults": self.refaults,
            "refaults_activated": self.recent,
        }

    def attach(self, vms: Sequence[LiveVm]) -> None:
        """Learn whose pages there are."""
        for vm in vms:
            self.pages[vm.pages.owner] = _Pages(vm)

    def begin(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    def scan(self, vm: LiveVm, priority: int, goal: int) -> Found:
        """Evict some of a VM's pages, or age them (try_to_shrink_lruvec)."""
        pages = self.pages[vm.pages.owner]
        pages.renew()
        pages.walked = pages.walk_young = pages.young = 0
        before, scanned = int(pages.lists.counts[Count.SCANNED]), 0
        taken: list[Words] = []
        while True:
            due, count = pages.to_scan(priority)
            if due and priority < PRIORITY:
                pages.age()
                self.aged += 1
                break
            if not count:
                break
            scanned += (looked := pages.evict(taken))
            if not looked or scanned >= count or sum(map(len, taken)) >= goal:
                break
        looked = int(pages.lists.counts[Count.SCANNED]) - before
        numbers = np.concatenate(taken) if taken else _NOTHING
        return Found(numbers, looked, pages.young, pages.walked, pages.walk_young)

    def age(self, vm: LiveVm) -> Found:
        """Do nothing: aging is a part of scanning."""
        return Found(_NOTHING, 0, 0)

    def keep(self, vm: LiveVm, number: int, *, active: bool) -> None:
        """Put a page that could not be taken into the youngest generation: rejected ones are active (evict_folios)."""
        pages = self.pages[vm.pages.owner]
        insert(pages.lists, number, pages.youngest % MOST, 0)

    def evicted(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Note when pages were taken, and which generation was the oldest (lru_gen_eviction)."""
        pages = self.pages[memory.owner]
        seq = pages.oldest
        for number, slot in zip(numbers.tolist(), slots.tolist(), strict=True):
            refs = int(pages.lists.refs[number])
            pages.evicted[tier_of(refs)] += 1
            self._shadows[slot] = _Shadow(memory.owner, seq, refs)

    def returned(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Make pages that came back such of the youngest generation; note which came soon (lru_gen_refault)."""
        pages = self.pages[memory.owner]
        self.refaults += len(numbers)
        refs = np.zeros(len(numbers), np.int64)
        for at, slot in enumerate(slots.tolist()):
            shadow = self._shadows.get(slot)
            if shadow and (shadow.owner, shadow.seq) == (memory.owner, pages.oldest):
                self.recent += 1
                pages.refaulted[tier_of(shadow.refs)] += 1
                refs[at] = PROTECTED
        insert_each(pages.lists, numbers, pages.youngest % MOST, refs)

    def released(self, slots: Words) -> None:
        """Forget when the pages in slots were taken, int64[n]."""
        for slot in slots.tolist():
            self._shadows.pop(slot, None)


def build(parts: DaemonParts) -> Mglru:
    """Return the policy."""
    return Mglru()
