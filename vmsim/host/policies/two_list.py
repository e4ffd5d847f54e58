"""Linux's two lists: active and inactive pages, and refaults that make a page active (mm/vmscan.c, mm/workingset.c).

Every VM has lists of its own, as one in a memory cgroup has. A page that is new is inactive. At the tail of the
inactive list it is taken unless it was accessed since the last look; the first time that it was it goes round once
more, and the second it becomes active. Active pages become inactive from the tail, accessed or not, when the inactive
list is short: shorter than the active one by the root of ten times the GiB of both. A page that comes back is active at
once if fewer pages were taken meanwhile than are active (the refault distance).

There are no pages of files on the host. A guest's kernel has two of these, one for pages of files: pages of both are
counted together where it is asked how many were taken meanwhile. New pages join when their VM is looked at, in the
order of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Found
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.policies.lists import (
    ACTIVE,
    BATCH,
    INACTIVE,
    LONG_AGO,
    Count,
    TwoLists,
    all_low,
    arrive,
    arrive_each,
    come_back,
    drop_each,
    is_low,
    make_lists,
    put,
    set_young,
    shrink,
    shrink_active,
    tails,
    use,
)
from vmsim.jit import of_one_type

__all__ = ["Age", "TwoList", "build"]

Words = NDArray[np.int64]

_NOTHING = np.empty(0, np.int64)
_EVERY = 16  # a VM's new pages are looked for after a look at one in so many of its pages


_come_back, _tails, _set_young, _drop_each = map(of_one_type, (come_back, tails, set_young, drop_each))
_shrink_lists = of_one_type(shrink)


class _Pages:
    """The lists of one VM."""

    def __init__(self, vm: Any, counts: Words) -> None:
        self.vm = vm
        self.lists: TwoLists = make_lists(vm.pages.numbers, counts)
        self.numbers = np.empty(vm.pages.numbers + BATCH, np.int64)  # scratch
        self.victims = np.empty(vm.pages.numbers + BATCH, np.int64)
        self.due = 0  # pages to look at before new ones are looked for

    def renew(self) -> None:
        """Find new pages, where it is time to."""
        if self.due > 0 and self.lists.counts[INACTIVE] > BATCH:
            return
        memory = self.vm.pages
        if (backing := getattr(memory, "backing", None)) is not None:
            arrive(self.lists, backing)
        else:
            arrive_each(self.lists, memory.present())
        self.due = memory.numbers // _EVERY

    def last(self, inactive: int, active: int) -> tuple[int, Words]:
        """Drop those of the last pages of each list that are no pages any more; return the others, int64[n].

        And how many of them are inactive.
        """
        of_inactive = min(inactive, self.size(INACTIVE))
        count = int(_tails(self.lists, inactive, active, self.numbers))
        asked = self.numbers[:count]
        there = self.vm.pages.holds_each(asked)
        if not there.all():
            _drop_each(self.lists, asked[~there])
            asked = asked[there]
        return int(np.count_nonzero(there[:of_inactive])), asked

    def look(self, inactive: int, active: int) -> tuple[int, int, int]:
        """Ask which of the last pages of each list were accessed, and drop those that are no pages any more.

        Returns how many of the inactive ones are left, of them and the active ones together, and were accessed.
        """
        left, asked = self.last(inactive, active)
        young = self.vm.pages.second.age_each(asked, clear=True)
        _set_young(self.lists, asked, young)
        return left, len(asked), int(np.count_nonzero(young))

    def size(self, which: int) -> int:
        """Return how long a list is."""
        return int(self.lists.counts[which])


class Age:
    """How many pages were taken or became active by a refault, so far (nonresident_age)."""

    def __init__(self) -> None:
        self.taken = 0


class TwoList:
    """The lists of all VMs.

    Parameters
    ----------
    age : Age, optional
        What refault distances are counted in, if that is not its own.

    Attributes
    ----------
    more : callable
        Returns by how much the distance of a page that is active at once may pass the pages that are active here.
    counts : dict
        Pages looked at (`scanned`), made `active`, `kept` once and made inactive (`deactivated`); those that came back
        (`refaults`), and those of them that were active at once.
    """

    def __init__(self, age: Age | None = None) -> None:
        self.pages: dict[int, _Pages] = {}
        self._every: Words = np.zeros((0, Count.SIZE), np.int64)  # the counts of all lists
        self.age_of_all = age or Age()
        self.more: Callable[[], int] = lambda: 0
        self.activated = 0
        self.refaults = 0
        self._ages: Words = np.empty(0, np.int64)  # by slot, `taken` when the page in it was
        self._seen = 0  # refaults that made pages active, at the end of the last reclaim
        self._deactivates = True

    @property
    def taken(self) -> int:
        """Pages that were taken or became active by a refault."""
        return self.age_of_all.taken

    @property
    def counts(self) -> dict[str, int]:
        """What was done, and found."""
        total = self._every.sum(axis=0)
        return {
            "scanned": int(total[Count.SCANNED]),
            "activated": int(total[Count.ACTIVATED]),
            "kept": int(total[Count.KEPT]),
            "deactivated": int(total[Count.DEACTIVATED]),
            "refaults": self.refaults,
            "refaults_activated": self.activated,
        }

    def attach(self, vms: Sequence[Any]) -> None:
        """Learn whose pages there are."""
        self._every = np.zeros((len(vms), Count.SIZE), np.int64)
        self.pages = {vm.pages.owner: _Pages(vm, counts) for vm, counts in zip(vms, self._every, strict=True)}

    def begin(self) -> None:
        """Find out whether active pages may become inactive (prepare_scan_control)."""
        self._deactivates = self.activated != self._seen or self._low()

    def end(self) -> None:
        """Note how many refaults there were (snapshot_refaults)."""
        self._seen = self.activated

    def _low(self) -> bool:
        return bool(all_low(self._every))

    def size(self, which: int) -> int:
        """Return how long a list is, those of all VMs together."""
        return sum(each.size(which) for each in self.pages.values())

    @property
    def deactivates(self) -> bool:
        """Whether active pages may become inactive in this reclaim."""
        return self._deactivates

    @property
    def ages(self) -> bool:
        """Whether the inactive lists are short everywhere."""
        return self._low()

    def scan(self, vm: Any, priority: int, goal: int) -> Found:
        """Look at one page in 2**priority of a VM's; return those to be taken, about `goal` at most."""
        pages = self.pages[vm.pages.owner]
        pages.renew()
        inactive, active = pages.size(INACTIVE) >> priority, pages.size(ACTIVE) >> priority
        low = bool(is_low(pages.size(INACTIVE), pages.size(ACTIVE)))
        if not inactive and not low:
            return Found(_NOTHING, 0, 0)
        inactive, _, young = pages.look(inactive, (active if self._deactivates else 0) + BATCH)
        return self._shrink(pages, inactive, active, goal, young)

    def _shrink(self, pages: _Pages, inactive: int, active: int, goal: int, young: int) -> Found:
        before = pages.lists.counts[Count.SCANNED]
        count = int(_shrink_lists(pages.lists, inactive, active, goal, self._deactivates, pages.victims))
        looked = int(pages.lists.counts[Count.SCANNED] - before)
        pages.due -= looked
        return Found(pages.victims[:count].copy(), looked, young)

    # ---- the same in steps, for who has to wait for an answer: a guest's kernel, which has one VM's pages

    def renew(self, vm: Any) -> None:
        """Find new pages, where it is time to."""
        self.pages[vm.pages.owner].renew()

    def ask(self, vm: Any, inactive: int, active: int) -> tuple[int, Words]:
        """Return pages of which it is to be found out whether they were accessed, int64[n], before `shrink`.

        And before them how many inactive ones there are to be looked at.
        """
        left, asked = self.pages[vm.pages.owner].last(inactive, (active if self._deactivates else 0) + BATCH)
        return left, asked.copy()

    def answer(self, vm: Any, numbers: Words, young: NDArray[np.bool_]) -> None:
        """Learn which of them were, bool[n]."""
        _set_young(self.pages[vm.pages.owner].lists, numbers, young)

    def shrink(self, vm: Any, inactive: int, active: int, goal: int) -> Found:
        """Look at so many pages of each list; return those to be taken, about `goal` at most."""
        return self._shrink(self.pages[vm.pages.owner], inactive, active, goal, 0)

    def rebalance(self, vm: Any) -> None:
        """Move some active pages to the inactive list where that is short (shrink_lruvec, at its end)."""
        if self._low():
            shrink_active(self.pages[vm.pages.owner].lists)

    def add(self, vm: Any, number: int) -> None:
        """Learn of a new page."""
        put(self.pages[vm.pages.owner].lists, number, INACTIVE)

    def use(self, vm: Any, number: int) -> None:
        """Learn that a page was used by a system call."""
        if use(self.pages[vm.pages.owner].lists, number):
            self.age_of_all.taken += 1

    def drop(self, vm: Any, numbers: Words) -> None:
        """Learn that pages are no more, int64[n]."""
        _drop_each(self.pages[vm.pages.owner].lists, numbers)

    def age(self, vm: Any) -> Found:
        """Move some active pages to the inactive list where that is short everywhere (kswapd_age_node)."""
        pages = self.pages[vm.pages.owner]
        if not self._low() or not pages.size(ACTIVE):
            return Found(_NOTHING, 0, 0)
        _, looked, young = pages.look(0, BATCH)
        shrink_active(pages.lists)
        return Found(_NOTHING, looked, young)

    def keep(self, vm: Any, number: int, *, active: bool) -> None:
        """Put a page that could not be taken on a list again."""
        put(self.pages[vm.pages.owner].lists, number, ACTIVE if active else INACTIVE)

    def evicted(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Note when pages were taken (workingset_eviction)."""
        age = self.age_of_all
        first, age.taken = age.taken, age.taken + len(slots)
        if len(slots) and (most := int(slots.max())) >= len(self._ages):
            longer = np.full(max(2 * len(self._ages), most + 1), LONG_AGO)
            longer[: len(self._ages)] = self._ages
            self._ages = longer
        self._ages[slots] = np.arange(first + 1, age.taken + 1)

    def returned(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Put pages that came back on the lists where they belong (workingset_refault)."""
        lists, now = self.pages[memory.owner].lists, self.age_of_all.taken
        active = int(_come_back(lists, self._every, self.more(), numbers, self._ages, slots, now))
        self.refaults += len(numbers)
        self.age_of_all.taken += active
        self.activated += active

    def released(self, slots: Words) -> None:
        """Forget when the pages in slots were taken, int64[n]."""
        self._ages[slots[slots < len(self._ages)]] = LONG_AGO


def build(parts: DaemonParts) -> TwoList:
    """Return the policy."""
    return TwoList()
