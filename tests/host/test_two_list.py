"""Do the compiled lists take the pages that a plain reading of mm/vmscan.c and mm/workingset.c takes, in its order?"""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.oracle.two_list import Host, Lists
from vmsim.host.policies.lists import ACTIVE, INACTIVE, TwoLists, is_low
from vmsim.host.policies.two_list import TwoList

PAGES = 400


class Memory:
    """Pages that are there, and which of them were accessed."""

    def __init__(self, owner: int, pages: int) -> None:
        self.owner = owner
        self.numbers = pages
        self.there = np.zeros(pages, np.bool_)
        self.accessed = np.zeros(pages, np.bool_)
        self.second = self

    def present(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.there)

    def holds_each(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self.there[numbers]

    def age_each(self, numbers: NDArray[np.int64], *, clear: bool) -> NDArray[np.bool_]:
        found = self.accessed[numbers].copy()
        if clear:
            self.accessed[numbers] = False
        return found


def order(lists: TwoLists, which: int) -> list[int]:
    ring, found = len(lists.flags) + which, []
    at = int(lists.after[ring])
    while at != ring:
        found.append(at)
        at = int(lists.after[at])
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_lists_are_those_of_a_plain_reading(seed: int) -> None:
    random = Random(seed)
    memories = [Memory(owner, PAGES) for owner in range(3)]
    vms: list[Any] = [SimpleNamespace(pages=each) for each in memories]
    policy = TwoList()
    policy.attach(vms)
    pending: dict[tuple[int, int], bool] = {}  # what the policy has asked for already, and its twin has not

    def young(owner: int, page: int) -> bool:
        kept = bool(policy.pages[owner].lists.flags[page] & 8) if before is None else bool(before[owner][page])
        before_flag = kept or bool(then[owner][page])
        pending.pop((owner, page), None)
        then[owner][page] = False
        if before is not None:
            before[owner][page] = 0
        return before_flag

    twin = Host(young)
    twin.memories = {each.owner: Lists() for each in memories}
    slots: dict[int, tuple[int, int]] = {}
    slot = 0
    before: Any = None
    for _ in range(120):
        memory = random.choice(memories)
        owner = memory.owner
        what = random.random()
        if what < 0.3:  # new pages
            new = [page for page in random.sample(range(PAGES), 40) if not memory.there[page]]
            away = {page for whose, page in slots.values() if whose == owner}
            new = sorted(page for page in new if page not in away)
            memory.there[new] = True
            policy.pages[owner].due = 0
            policy.pages[owner].renew()
            for page in new:
                twin.memories[owner].add(page)
        elif what < 0.6:
            memory.accessed[random.sample(range(PAGES), 120)] = True
            memory.accessed &= memory.there
            for page in random.sample(range(PAGES), 20):
                policy.use(vms[owner], page)
                twin.use(owner, page)
        elif what < 0.75 and slots:
            back = random.choice([*slots])
            whose, page = slots.pop(back)
            memories[whose].there[page] = True
            policy.returned(memories[whose], np.array([page]), np.array([back]))
            twin.refault(whose, page, back)
        else:
            priority, goal = random.choice((0, 1, 2, 3)), random.choice((1, 32, 1000))
            before = {each.owner: policy.pages[each.owner].lists.flags & 8 for each in memories}
            then = {each.owner: each.accessed.copy() for each in memories}
            policy.begin()
            twin.begin()
            policy.pages[owner].due = 1 << 40  # the new ones are known
            found = policy.scan(vms[owner], priority, goal)
            wanted = twin.shrink(owner, priority, goal)
            policy.end()
            twin.end()
            assert found.numbers.tolist() == wanted
            for page in wanted:
                memory.there[page] = memory.accessed[page] = False
                slots[slot] = owner, page
                policy.evicted(memory, np.array([page]), np.array([slot]))
                twin.evict(slot)
                slot += 1
        for each in memories:
            lists = policy.pages[each.owner].lists
            assert order(lists, INACTIVE) == twin.memories[each.owner].inactive
            assert order(lists, ACTIVE) == twin.memories[each.owner].active
    assert policy.activated == twin.activated
    assert policy.taken == twin.nonresident_age > 100


def test_a_page_that_comes_back_soon_is_active_at_once() -> None:
    """Forty pages are active after two looks that found them accessed; then two of the others come back."""
    memory = Memory(0, 64)
    vm: Any = SimpleNamespace(pages=memory)
    policy = TwoList()
    policy.attach([vm])
    memory.there[:] = True
    policy.pages[0].renew()
    for _ in range(2):
        memory.accessed[:40] = True
        policy.begin()
        found = policy.scan(vm, 0, 1000)
        memory.there[found.numbers] = False
    lists = policy.pages[0].lists
    assert found.numbers.tolist() == []  # the 24 others went at the first look
    assert (int(lists.counts[INACTIVE]), int(lists.counts[ACTIVE])) == (32, 8)  # a batch was moved: inactive was short
    policy.evicted(memory, np.array([1, 2]), np.array([7, 8]))
    memory.there[60] = True
    policy.returned(memory, np.array([60]), np.array([7]))  # at a distance of 1
    assert order(lists, ACTIVE)[0] == 60
    for slot in range(9, 20):
        policy.evicted(memory, np.array([3]), np.array([slot]))
    memory.there[61] = True
    policy.returned(memory, np.array([61]), np.array([8]))  # at a distance of 12, and 9 are active
    assert order(lists, INACTIVE)[0] == 61
    assert policy.counts["refaults_activated"] == 1


@pytest.mark.parametrize(("gib", "ratio"), [(0, 1), (1, 3), (10, 10), (100, 31)])
def test_how_short_the_inactive_list_may_be(gib: int, ratio: int) -> None:
    """The table over inactive_is_low in mm/vmscan.c: 1GB 3, 10GB 10, 100GB 31; below, as long as the active one."""
    total = (gib << 18) or 1000
    inactive = total // (ratio + 1)
    assert not is_low(inactive + 1, total - inactive - 1)
    assert is_low(inactive - 1, total - inactive + 1)


def test_a_page_that_is_gone_is_on_no_list() -> None:
    memory = Memory(0, 64)
    vm: Any = SimpleNamespace(pages=memory)
    policy = TwoList()
    policy.attach([vm])
    memory.there[:40] = True
    policy.pages[0].renew()
    memory.there[:10] = False
    policy.begin()
    found = policy.scan(vm, 0, 100)
    assert sorted(found.numbers.tolist()) == [*range(10, 40)]


def test_only_pages_that_are_there_are_taken() -> None:
    memory = Memory(0, PAGES)
    memory.there[:] = True
    vm: Any = SimpleNamespace(pages=memory)
    policy = TwoList()
    policy.attach([vm])
    policy.begin()
    assert policy.scan(vm, 12, 1).looked == 0  # all are on the list now
    memory.there[::2] = False  # half of them came to lie in frames of others, or are ballooned: no list heard of it
    found = policy.scan(vm, 1, PAGES)
    assert len(found.numbers) > 0
    assert memory.there[found.numbers].all()
