"""Does the compiled swap cache hold what a dictionary would, and does a device serve requests as a heap would?"""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from tests.oracle.swap_cache import UNWRITTEN, WRITING, Cache, served
from vmsim.host.swap.cache import SwapCache
from vmsim.host.swap.queue import DeviceQueue

SLOTS = 40


def words(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)


class Pair:
    """Both caches, to which the same is done; requests that are under way, by whether they are writes."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.real, self.twin = SwapCache(SLOTS), Cache()
        self.under_way: list[tuple[bool, list[int], list[int]]] = []
        self.steps = (self.write, self.read, self.end, self.end, self.fail, self.again, self.drop)

    def free(self) -> list[int]:
        """Return slots that are not in the cache, a few, in no order."""
        slots = [slot for slot in range(SLOTS) if slot not in self.twin.pages]
        return self.random.sample(slots, min(len(slots), self.random.randint(1, 8)))

    def write(self) -> None:
        if slots := self.free():
            pfns = [slot + 1000 for slot in slots]
            stamps = self.real.add(words(slots), words(pfns), WRITING).tolist()
            assert stamps == self.twin.add(slots, pfns, WRITING)
            self.under_way.append((True, slots, stamps))

    def read(self) -> None:
        if slots := self.free():
            pfns = [slot + 2000 for slot in slots]
            wanted = self.twin.begin_reads(slots, pfns)
            given, frames = words(slots), words(pfns)
            stamps = self.real.begin_reads(given, frames)
            assert [*zip(given.tolist(), frames.tolist(), stamps.tolist(), strict=True)] == wanted
            self.under_way.append((False, given.tolist(), stamps.tolist()))

    def end(self) -> None:
        """Have one request be done."""
        if self.under_way:
            written, slots, stamps = self.under_way.pop(self.random.randrange(len(self.under_way)))
            end, twin = (
                (self.real.end_writes, self.twin.end_writes) if written else (self.real.end_reads, self.twin.end_reads)
            )
            there, whole = end(words(slots), words(stamps))
            assert there.tolist() == twin(slots, stamps)
            assert whole == all(there)

    def fail(self) -> None:
        """Have a write fail: its pages stay, and the device has them not."""
        writes = [each for each in self.under_way if each[0]]
        if writes:
            self.under_way.remove(writes[0])
            _, slots, stamps = writes[0]
            left = [slot for slot, there in zip(slots, self.twin.there(slots, stamps), strict=True) if there]
            self.real.settle(words(left), UNWRITTEN)
            self.twin.settle(left, UNWRITTEN)

    def again(self) -> None:
        """Have what could not be written be written again."""
        slots = [slot for slot in self.twin.idle if self.twin.pages[slot][2] & UNWRITTEN][:3]
        if slots:
            self.real.write_again(words(slots))
            self.twin.write_again(slots)
            self.under_way.append((True, slots, [self.twin.pages[slot][1] for slot in slots]))

    def drop(self) -> None:
        """Have somebody take pages out."""
        slots = self.random.sample(sorted(self.twin.pages), min(2, len(self.twin.pages)))
        self.real.remove(words(slots))
        self.twin.remove(slots)


@pytest.mark.parametrize("seed", range(6))
def test_the_cache_holds_what_a_dictionary_does(seed: int) -> None:
    pair, seen = Pair(seed), set[str]()
    for _ in range(400):
        step = pair.random.choice(pair.steps)
        step()
        real, twin = pair.real, pair.twin
        assert [*real] == sorted(twin.pages)
        assert len(real) == len(twin.pages)
        held = {slot: [int(real.pfns[slot]), int(real.stamps[slot]), int(real.flags[slot])] for slot in real}
        assert held == twin.pages
        assert real.oldest() == twin.oldest()
        some = pair.random.sample(range(SLOTS), 9)
        assert real.without(words(some), some[4]).tolist() == [
            slot for slot in some if slot != some[4] and slot not in twin.pages
        ]
        seen.add(step.__name__)
    assert len(seen) == 6


@pytest.mark.parametrize("channels", [1, 2, 7, 32])
def test_requests_made_together_are_served_one_after_the_other(channels: int) -> None:
    random, queue, now, requests = Random(channels), DeviceQueue(channels), 0, []
    for _ in range(300):
        now += random.choice((0, 5, 900))
        requests.append((now, [random.randint(1, 3000) for _ in range(random.randint(1, 12))]))
    done, waited = served(channels, requests)
    assert [queue.submit(when, words(services)).tolist() for when, services in requests] == done
    assert (queue.waited, queue.served) == (waited, sum(sum(services) for _, services in requests))
    assert queue.requests == sum(len(services) for _, services in requests)
    assert waited > 0
