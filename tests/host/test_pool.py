"""Does a page pool keep to its protocol, to the cycle? Pools on a host, without VMs."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
import pytest
import simpy

from vmsim import plugins
from vmsim.base.clock import Clock
from vmsim.frames.records import State
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.memory import HostMemory
from vmsim.host.pool import PagePool, reclaimer
from vmsim.record.messages import Kind, MessageLog
from vmsim.record.outcome import Transfer
from vmsim.scenario import Marks
from vmsim.scenario.cpu_files import load_cpu
from vmsim.scenario.daemons import policies
from vmsim.scenario.keys import Pool

MESSAGE, GRANT_FIXED, GRANT_PAGE, RECLAIM_FIXED, RECLAIM_PAGE = (
    2435,
    1650,
    295 + 1438,
    1650,
    295,
)  # a granted page is cleared

MARKS = Marks(16, 20, 24)


def policy(name: str) -> Any:
    """Return a policy with its keys as they are by default, on the yardstick."""
    found, cpu = policies()[name], load_cpu("yardstick")
    table = found.table() if found.table else None
    return plugins.resolve(found.build)(DaemonParts(table, cpu.frequency, 1, policy, cpu.cost))


def grant(pages: int) -> int:
    return GRANT_FIXED + pages * GRANT_PAGE


def reclaim(pages: int) -> int:
    return RECLAIM_FIXED + pages * RECLAIM_PAGE


@dataclass
class Site:
    """A host with pools, and who took what when."""

    frames: int = 4096
    marks: Marks = MARKS
    specs: tuple[tuple[int, int, int], ...] = ((4, 64, 16),)  # (min, max, batch) of each pool
    refill: str = "batch"
    spares: str = "largest"
    shares: tuple[int, ...] = ()  # of each pool, 1000 where it is not said
    transfers: list[Transfer] = field(default_factory=list)
    got: list[tuple[int, int, int]] = field(default_factory=list)  # (time, owner, pages)

    def __post_init__(self) -> None:
        self.env = Clock()
        self.messages = MessageLog()
        self.host = HostMemory(self.env, self.frames, self.marks)
        costs = load_cpu("yardstick").cost
        self.pools = [
            PagePool(
                self.env,
                self.host,
                Pool(min=low, max=high, batch=batch),
                costs,
                owner=owner,
                name=f"vm{owner}",
                log=self.transfers.append,
                messages=self.messages,
                refills=policy(self.refill),
            )
            for owner, (low, high, batch) in enumerate(self.specs)
        ]
        for pool, shares in zip_longest(self.pools, self.shares, fillvalue=1000):
            pool.shares = shares  # type: ignore[union-attr]
        self.env.process(reclaimer(self.env, self.host, self.pools, policy(self.spares)))

    def taker(self, owner: int, *counts: int, at: int = 0) -> Generator[simpy.Event, Any, None]:
        """Take pages as a monitor does, one request after the other."""
        yield self.env.timeout(at)
        for count in counts:
            pages = self.pools[owner].take(count)
            if not pages:
                pages = yield self.pools[owner].request(count)
            assert len(pages) == count == len(set(pages))
            assert (self.host.frames["owner"][pages] == owner).all()
            self.got.append((self.env.cycle, owner, count))

    def run(self, *processes: Generator[simpy.Event, Any, None], events: int = 10_000) -> None:
        """Run until nothing happens any more, which must be soon."""
        for each in processes:
            self.env.process(each)
        for _ in range(events):
            if self.env.peek() == float("inf"):
                break
            self.env.step()
        else:
            raise AssertionError(f"{events} events, and cycle {self.env.cycle} is not the end")
        free = self.host.frames["state"] == State.FREE
        assert self.host.free == np.count_nonzero(free)

    def said(self) -> list[tuple[int, int, str, int, int]]:
        return [(each.time, each.vm, each.kind.name, each.pages, each.cycles) for each in self.messages]

    def log(self, owner: int = 0) -> list[tuple[int, str, int, int]]:
        return [(each.time, each.what, each.pages, each.level) for each in self.transfers if each.vm == f"vm{owner}"]


def test_a_pool_below_its_minimum_gets_one_batch() -> None:
    site = Site()
    site.run(site.taker(0, 1))
    first = MESSAGE + grant(16)
    assert site.got == [(first, 0, 1)]
    assert site.log() == [(first, "grant", 16, 15)]
    site.run(site.taker(0, 11))  # down to the minimum, not below it
    assert len(site.transfers) == 1
    site.run(site.taker(0, 1))
    assert site.log()[1:] == [(2 * first, "grant", 16, 3 + 16)]
    assert site.host.free == 4096 - 32


def test_a_pool_far_below_its_minimum_gets_batches_until_it_is_there() -> None:
    site = Site(specs=((40, 64, 16),))
    site.run(site.taker(0, 1))
    first = MESSAGE + grant(16)
    assert site.log() == [(first + n * grant(16), "grant", 16, 15 + n * 16) for n in range(3)]


def test_a_refill_brings_what_is_waited_for_and_no_more_than_the_maximum() -> None:
    site = Site(specs=((1, 10, 16),))
    site.run(site.taker(0, 1))
    first = MESSAGE + grant(11)
    assert site.log() == [(first, "grant", 11, 10)]
    assert site.host.free == 4096 - 11
    assert site.transfers[-1].host_free == site.host.free


def test_what_is_put_over_the_maximum_is_taken_at_once_and_given_back_after_its_cost() -> None:
    """A monitor gives 6 of 11 pages back when its pool is full: not one of them stays until the next message."""
    site = Site(specs=((1, 10, 16),))
    site.run(site.taker(0, 1))
    pool, begin = site.pools[0], site.env.cycle
    taken = pool.take(9)  # down to the minimum, of which nobody is told
    pool.put(taken[:4])
    assert (pool.level, len(site.transfers)) == (5, 1)
    pool.put([*taken[4:], *site.host.take(0, 1, State.POOL).tolist()])  # 11: one too many
    assert pool.level == 10
    site.run()
    assert site.log()[1:] == [(begin + reclaim(1), "spare", 1, 10)]
    assert site.said()[-1] == (begin, 0, "SPARE", 1, reclaim(1))
    assert site.host.free == 4096 - 11


def test_pages_given_back_while_a_refill_is_on_its_way_leave_no_more_than_the_maximum() -> None:
    site = Site(specs=((4, 10, 16),))
    site.run(site.taker(0, 7))
    pool = site.pools[0]
    taken = pool.take(7)
    site.env.run(site.env.cycle + MESSAGE + 1)  # the host clears eight pages
    pool.put(taken)
    assert pool.level == 9
    site.run()
    assert [(what, pages, level) for _, what, pages, level in site.log()[1:]] == [
        ("grant", 8, 10),
        ("spare", 7, 10),
    ]


def test_every_movement_of_pages_is_a_message_and_so_is_every_call_for_them() -> None:
    site = Site(specs=((2, 10, 16),))
    site.run(site.taker(0, 3))
    granted = MESSAGE + grant(13)
    assert site.said() == [
        (0, 0, "NEED_PAGES", 3 + 2, MESSAGE),  # for the suspended vCPU, and up to the minimum
        (MESSAGE, 0, "GRANT", 13, grant(13)),
    ]
    site.run(site.pools[0].close())
    assert site.said()[2:] == [(granted, 0, "RETURN", 10, reclaim(10))]


def test_a_pool_that_is_emptied_again_and_again_calls_each_time() -> None:
    """Each request finds one page fewer than it wants, and suspends its vCPU: a call and a grant each."""
    site = Site(specs=((0, 1, 256),))
    site.run(site.taker(0, *[2] * 50))
    kinds = [kind for _, _, kind, _, _ in site.said()]
    assert kinds == ["NEED_PAGES", "GRANT"] * 50
    assert [pages for _, _, kind, pages, _ in site.said() if kind == "GRANT"] == [3, *[2] * 49]


def test_who_is_suspended_while_a_refill_is_on_its_way_calls_as_well() -> None:
    """The first sinks below the minimum, which is a call; the second finds too little, which is another."""
    site = Site(specs=((4, 8, 8),))
    site.run(site.taker(0, 4))
    begin = site.env.cycle
    site.run(site.taker(0, 1), site.taker(0, 6, at=500))
    later = [(time - begin, kind, pages) for time, _, kind, pages, _ in site.said() if time >= begin]
    assert later[:3] == [(0, "NEED_PAGES", 1), (500, "NEED_PAGES", 6 + 1), (MESSAGE, "GRANT", 8)]


def test_a_large_page_is_asked_for_and_granted_by_messages() -> None:
    site = Site()
    pfn = site.pools[0].take_block(9)
    assert pfn % 512 == 0
    assert site.said() == [
        (0, 0, "NEED_LARGE", 512, MESSAGE),
        (MESSAGE, 0, "GRANT_LARGE", 512, GRANT_FIXED + 512 * (GRANT_PAGE - 295)),  # cleared, but one piece to hand over
    ]
    assert [site.pools[0].take_block(18), len(site.messages)] == [-1, 2]  # there is none, and nobody says anything


def test_a_host_that_is_short_asks_for_pages_and_gets_them() -> None:
    site = Site(frames=64, marks=Marks(8, 12, 16), specs=((2, 40, 40), (2, 40, 40)))
    site.run(site.taker(0, 1), site.taker(1, 1, at=100_000))
    asked = next(each for each in site.messages if each.kind == Kind.RECLAIM)
    given = next(each for each in site.messages if each.kind == Kind.SPARE)
    assert (asked.vm, asked.pages, asked.cycles) == (given.vm, given.pages, RECLAIM_FIXED)
    assert (given.time, given.cycles) == (asked.time + RECLAIM_FIXED, given.pages * RECLAIM_PAGE)
    spare = next(each for each in site.transfers if each.what == "spare")
    assert (spare.time, spare.pages) == (given.time + given.cycles, given.pages)


@pytest.mark.parametrize(("low", "high", "batch"), [(1, 5, 3), (0, 1, 1), (2, 2, 7)])
def test_a_request_larger_than_a_batch_and_the_maximum_is_served(low: int, high: int, batch: int) -> None:
    site = Site(specs=((low, high, batch),))
    site.run(site.taker(0, 40))
    grants = -(-40 // batch)
    assert site.got == [(MESSAGE + grants * grant(batch), 0, 40)]
    assert site.pools[0].level <= high


def test_requests_are_served_in_their_order() -> None:
    """A small request waits behind a large one, and a take without waiting does not overtake it."""
    site = Site(specs=((0, 100, 4),))
    site.run(site.taker(0, 10), site.taker(0, 1, at=1), site.taker(0, 1, at=MESSAGE + grant(4) + 1))
    assert [(owner, pages) for _, owner, pages in site.got] == [(0, 10), (0, 1), (0, 1)]
    assert [time for time, _, _ in site.got] == [MESSAGE + 3 * grant(4)] * 3


def test_spare_pages_are_taken_when_the_host_is_low_and_given_to_another_pool() -> None:
    """512 frames: 400 go to a's pool, which needs 1; b needs 200 and gets a's spare ones."""
    site = Site(512, Marks(8, 10, 12), ((4, 500, 400), (4, 64, 32)))
    site.run(site.taker(0, 1), site.taker(1, *[10] * 20, at=400_000))
    assert sum(pages for _, owner, pages in site.got if owner == 1) == 200
    spares = [pages for _, what, pages, _ in site.log(0) if what == "spare"]
    assert sum(spares) == 400 - 1 - 4  # all but its minimum
    assert not [each for each in site.log(1) if each[1] == "spare" and each[3] < 4]


def test_spare_pages_that_arrive_after_a_pool_began_to_starve_reach_it() -> None:
    """b asks while the host's last frames are on their way to a, which needs but one of them."""
    site = Site(256, Marks(8, 10, 12), ((1, 256, 240), (1, 64, 4)))
    site.run(site.taker(0, 1), site.taker(1, *[1] * 30, at=5_000))
    assert sum(pages for _, owner, pages in site.got if owner == 1) == 30
    first = MESSAGE + grant(240)
    last = max(time for time, owner, _ in site.got if owner == 1)
    assert last < first + reclaim(238) + 30 * (MESSAGE + grant(4))


def test_pages_that_a_suspended_vcpu_is_given_are_not_taken_back() -> None:
    """The host is low all the time, every grant of one page calls for reclaim, and three pages are waited for."""
    site = Site(100, Marks(1, 97, 98), ((1, 8, 1),))
    site.run(site.taker(0, 3, 4, 2))
    assert [pages for _, _, pages in site.got] == [3, 4, 2]


def test_the_pool_with_most_to_spare_gives_first() -> None:
    site = Site(512, Marks(8, 10, 12), ((4, 500, 50), (4, 500, 200), (4, 64, 16)))
    site.run(site.taker(0, 1), site.taker(1, 1))
    taken = site.host.take(7, 512, State.GUEST, reserve=16)
    assert len(taken) == 512 - 250 - 16
    site.run(site.taker(2, 1, at=1))
    assert [each.vm for each in site.transfers if each.what == "spare"][:1] == ["vm1"]


def test_two_starving_pools_are_served_in_turn_when_frames_come_back() -> None:
    site = Site(128, Marks(8, 10, 12), ((0, 64, 16), (0, 64, 16)))
    held = site.host.take(7, 120, State.GUEST)

    def release() -> Generator[simpy.Event, Any, None]:
        yield site.env.timeout(1_000_000)
        assert site.host.starving
        assert site.host.first_request.asker == 0
        site.host.give(held[:100])

    site.run(site.taker(0, 20), site.taker(1, 20, at=1), release())
    assert sorted(owner for _, owner, _ in site.got) == [0, 1]
    second = 1_000_000 + 2 * grant(16)
    assert site.got == [(second, 0, 20), (second, 1, 20)]  # each host side works on its own


def close(site: Site, owner: int, at: int) -> Generator[simpy.Event, Any, None]:
    yield site.env.timeout(at)
    yield from site.pools[owner].close()
    site.host.give_all(owner)


@pytest.mark.parametrize("at", [0, 1, MESSAGE, MESSAGE + 1, MESSAGE + grant(16) - 1, MESSAGE + grant(16) + 1])
def test_a_pool_closed_at_any_moment_of_a_refill_leaves_nothing_behind(at: int) -> None:
    site = Site()
    site.run(site.taker(0, 1))
    begin = site.env.cycle
    site.run(site.taker(0, 12), close(site, 0, at))
    assert site.host.free == site.host.size
    assert not site.host.starving
    assert (site.host.frames["state"] == State.FREE).all()
    grants = [time for time, what, _, _ in site.log() if what == "grant" and time > begin]
    assert len(grants) == (at > MESSAGE + grant(16))


def test_a_closed_pool_asks_for_nothing() -> None:
    """A VM that ends between its call and the host's hearing it must not stand in the queue before those that live."""
    site = Site(64, Marks(8, 10, 12), ((4, 16, 16), (0, 16, 16)))
    site.run(site.taker(0, 1))
    held = site.host.take(7, 64, State.GUEST, reserve=8)
    asked = []
    request = site.host.request
    site.host.request = lambda *what, asker: asked.append(asker) or request(*what, asker=asker)  # type: ignore[method-assign, func-returns-value]
    site.run(site.taker(0, 12), close(site, 0, MESSAGE // 2))
    assert asked == []
    site.host.give(held)
    assert site.host.free == site.host.size


def test_a_pool_gives_everything_back_for_what_its_taking_costs() -> None:
    site = Site()
    site.run(site.taker(0, 1))
    before = site.env.cycle
    site.run(close(site, 0, 0))
    assert site.env.cycle == before + reclaim(15)
    assert site.log()[-1] == (before + reclaim(15), "return", 15, 0)
    assert site.host.free == site.host.size
