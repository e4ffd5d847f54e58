"""Linux's two lists: active and inactive pages, and refaults that make a page active (mm/vmscan.c, mm/workingset.c).

Every VM has lists of its own, as one in a memory cgroup has. A page that is new is inactive. At the tail of the
inactive list it is taken unless it was accessed since the last look; the first time that it was it goes round once
more, and the second it becomes active. Active pages become inactive from the tail, accessed or not, when the inactive
list is short: shorter than the active one by the root of ten times the GiB of both. A page that comes back is active at
once if fewer pages were taken meanwhile than are active (the refault distance).

There are no pages of files on the host. New pages join when their VM is looked at, in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Found, LiveVm
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.policies.lists import (
    ACTIVE,
    BATCH,
    INACTIVE,
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
)

__all__ = ["TwoList", "build"]

Words = NDArray[np.int64]

_NOTHING = np.empty(0, np.int64)
_EVERY = 16  # a VM's new pages are looked for after a look at one in so many of its pages


class _Pages:
    """The lists of one VM."""

    def __init__(self, vm: LiveVm, counts: Words) -> None:
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

    def look(self, inactive: int, active: int) -> tuple[int, int, int]:
        """Ask which of the last pages of each list were accessed, and drop those that are no pages any more.

        Returns how many of the inactive ones are left, of them and the active ones together, and were accessed.
        """
        memory, of_inactive = self.vm.pages, min(inactive, self.size(INACTIVE))
        count = int(tails(self.lists, inactive, active, self.numbers))
        asked = self.numbers[:count]
        there = memory.holds_each(asked)
        if not there.all():
            drop_each(self.lists, asked[~there])
            asked = asked[there]
        young = memory.second.age_each(asked, clear=True)
        set_young(self.lists, asked, young)
        return int(np.count_nonzero(there[:of_inactive])), len(asked), int(np.count_nonzero(young))

    def size(self, which: int) -> int:
        """Return how long a list is."""
        return int(self.lists.counts[which])


class TwoList:
    """The lists of all VMs.

    Attributes
    ----------
    counts : dict
        Pages looked at (`scanned`), made `active`, `kept` once and made inactive (`deactivated`); those that came back
        (`refaults`), and those of them that were active at once.
    """

    def __init__(self) -> None:
        self.pages: dict[int, _Pages] = {}
        self._every: Words = np.zeros((0, Count.SIZE), np.int64)  # the counts of all lists
        self.taken = 0  # pages that were taken or became active by a refault: nonresident_age
        self.activated = 0
        self.refaults = 0
        self._shadows: dict[int, int] = {}  # `taken` when the page in a slot was
        self._seen = 0  # refaults that made pages active, at the end of the last reclaim
        self._deactivates = True

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

    def attach(self, vms: Sequence[LiveVm]) -> None:
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

    def scan(self, vm: LiveVm, priority: int, goal: int) -> Found:
        """Look at one page in 2**priority of a VM's; return those to be taken, about `goal` at most."""
        pages = self.pages[vm.pages.owner]
        pages.renew()
        inactive, active = pages.size(INACTIVE) >> priority, pages.size(ACTIVE) >> priority
        low = bool(is_low(pages.size(INACTIVE), pages.size(ACTIVE)))
        if not inactive and not low:
            return Found(_NOTHING, 0, 0)
        inactive, _, young = pages.look(inactive, (active if self._deactivates else 0) + BATCH)
        before = pages.lists.counts[Count.SCANNED]
        count = int(shrink(pages.lists, inactive, active, goal, self._deactivates, pages.victims))
        looked = int(pages.lists.counts[Count.SCANNED] - before)
        pages.due -= looked
        return Found(pages.victims[:count].copy(), looked, young)

    def age(self, vm: LiveVm) -> Found:
        """Move some active pages to the inactive list where that is short everywhere (kswapd_age_node)."""
        pages = self.pages[vm.pages.owner]
        if not self._low() or not pages.size(ACTIVE):
            return Found(_NOTHING, 0, 0)
        _, looked, young = pages.look(0, BATCH)
        shrink_active(pages.lists)
        return Found(_NOTHING, looked, young)

    def keep(self, vm: LiveVm, number: int, *, active: bool) -> None:
        """Put a page that could not be taken on a list again."""
        put(self.pages[vm.pages.owner].lists, number, ACTIVE if active else INACTIVE)

    def evicted(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Note when pages were taken (workingset_eviction)."""
        first, self.taken = self.taken, self.taken + len(slots)
        self._shadows.update(zip(slots.tolist(), range(first + 1, self.taken + 1), strict=True))

    def returned(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Put pages that came back on the lists where they belong (workingset_refault)."""
        ages = np.array([self._shadows.get(slot, -1 << 61) for slot in slots.tolist()], np.int64)
        lists = self.pages[memory.owner].lists
        active = int(come_back(lists, self._every, numbers, ages, self.taken))
        self.refaults += len(numbers)
        self.taken += active
        self.activated += active

    def released(self, slot: int) -> None:
        """Forget when the page in a slot was taken."""
        self._shadows.pop(slot, None)


def build(parts: DaemonParts) -> TwoList:
    """Return the policy."""
    return TwoList()
