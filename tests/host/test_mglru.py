"""Do the compiled generations take the pages that a plain reading of mm/vmscan.c takes, in its order?"""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.host.test_two_list import Memory as Pages
from tests.oracle.mglru import Lruvec
from vmsim.host.policies.generations import MOST
from vmsim.host.policies.mglru import Mglru
from vmsim.host.swap.memory import SwappableMemory

PAGES = 1300  # two tables and a half


class Memory(Pages, SwappableMemory):
    """Pages that are there, and which of them were accessed, in tables as a VM's are."""

    def __init__(self, owner: int, pages: int) -> None:
        Pages.__init__(self, owner, pages)
        self.backing = np.zeros(pages, np.int64)

    def show(self) -> None:
        self.backing[:] = self.there * (1 | 1 << 4)


def order(policy: Mglru, owner: int, seq: int) -> list[int]:
    lists = policy.pages[owner].lists
    ring, found = len(lists.gen) + seq % MOST, []
    at = int(lists.after[ring])
    while at != ring:
        found.append(at)
        at = int(lists.after[at])
    return found


def twin_of(memory: Memory) -> Lruvec:
    def young(page: int) -> bool:
        was = bool(memory.twin_accessed[page])  # type: ignore[attr-defined]
        memory.twin_accessed[page] = False  # type: ignore[attr-defined]
        return was

    memory.twin_accessed = memory.accessed.copy()  # type: ignore[attr-defined]
    return Lruvec(memory.numbers, young, lambda page: bool(memory.there[page]))


@pytest.mark.parametrize("seed", range(6))
def test_the_generations_are_those_of_a_plain_reading(seed: int) -> None:
    random = Random(seed)
    memory = Memory(3, PAGES)
    vm: Any = SimpleNamespace(pages=memory)
    policy, twin = Mglru(), twin_of(memory)
    policy.attach([vm])
    shadows: dict[int, tuple[int, tuple[int, int]]] = {}
    slot = recent = 0
    hot = random.sample(range(PAGES), 150)
    for _ in range(150):
        what = random.random()
        if what < 0.3:  # new pages
            away = {page for page, _ in shadows.values()}
            first = random.randrange(PAGES)
            new = [
                page for page in range(first, min(first + 120, PAGES)) if not memory.there[page] and page not in away
            ]
            memory.there[new] = True
            memory.show()
            policy.pages[3].due = 0
            policy.pages[3].renew()
            for page in new:
                twin.add(page)
        elif what < 0.5:
            for page in (*hot, *range(64 * random.randrange(20), 64 * random.randrange(1, 20))):
                if memory.there[page]:
                    memory.accessed[page] = memory.twin_accessed[page] = True  # type: ignore[attr-defined]
        elif what < 0.65 and shadows:
            for back in random.sample([*shadows], min(20, len(shadows))):
                page, shadow = shadows.pop(back)
                memory.there[page] = True
                memory.show()
                policy.returned(memory, np.array([page]), np.array([back]))
                recent += twin.refault(page, shadow)
        else:
            priority, goal = random.choice((0, 1, 2, 12)), random.choice((1, 64, 1000))
            policy.pages[3].due = 1 << 40  # the new ones are known
            found = policy.scan(vm, priority, goal)
            wanted = twin.try_to_shrink(priority, goal)
            assert found.numbers.tolist() == wanted
            for page in wanted:
                memory.there[page] = memory.accessed[page] = memory.twin_accessed[page] = False  # type: ignore[attr-defined]
                policy.evicted(memory, np.array([page]), np.array([slot]))
                shadows[slot] = page, twin.evict(page)
                slot += 1
            memory.show()
        pages = policy.pages[3]
        assert (pages.oldest, pages.youngest) == (twin.min_seq, twin.max_seq)
        for seq in range(twin.min_seq, twin.max_seq + 1):
            assert order(policy, 3, seq) == twin.lists[seq]
            assert pages.lists.pages[seq % MOST] == twin.nr_pages(seq)
        assert (memory.accessed == memory.twin_accessed).all()  # type: ignore[attr-defined]
        assert pages.refaulted.tolist() == twin.refaulted
        assert pages.avg_total.tolist() == twin.avg_total
    assert slot > 100
    assert policy.recent == recent > 0
    assert twin.max_seq > 6


def test_a_page_that_came_back_too_soon_is_protected_once() -> None:
    """It goes to the next generation from the tail of the oldest, with no references left (folio_inc_gen)."""
    memory = Memory(0, 64)
    vm: Any = SimpleNamespace(pages=memory)
    policy = Mglru()
    policy.attach([vm])
    pages = policy.pages[0]
    memory.there[:20] = True
    memory.show()
    pages.renew()
    policy.evicted(memory, np.array([5]), np.array([9]))
    policy.returned(memory, np.array([5]), np.array([9]))
    assert policy.recent == 1
    assert pages.lists.refs[5] == 4
    pages.due = 1 << 40
    for _ in range(6):  # nothing was accessed: generations go by until the oldest has the pages
        found = policy.scan(vm, 0, 1000)
        if len(found.numbers):
            break
    assert 5 not in found.numbers
    assert len(found.numbers) == 19
    assert policy.counts["protected"] == 1
    assert pages.lists.refs[5] == 0


@pytest.mark.parametrize(
    ("first", "third", "last"),
    [((100, 1000), (63, 70), 3), ((100, 1000), (64, 340), 3), ((100, 1000), (64, 320), 2), ((0, 1000), (64, 100), 2)],
)
def test_a_tier_is_protected_where_twice_as_many_come_back(
    first: tuple[int, int], third: tuple[int, int], last: int
) -> None:
    """By hand, from positive_ctrl_err: fewer than 64 refaults protect nothing, nor does a share of less than twice."""
    policy = Mglru()
    policy.attach([SimpleNamespace(pages=Memory(0, 64))])
    pages = policy.pages[0]
    pages.refaulted[0], pages.evicted[0] = first
    pages.refaulted[3], pages.lists.protected[3] = third
    assert pages.last_tier() == last
