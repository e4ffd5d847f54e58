"""Do policies choose the pages that they say, and does the host know the keys that are its own?"""

from __future__ import annotations

from typing import Any

import numpy as np

from vmsim.contracts import Flush
from vmsim.host.policies.clock import Clock
from vmsim.host.policies.random import AnyPage
from vmsim.scenario.daemons import RESERVED, host_daemons, policies
from vmsim.scenario.tables import Host


class Memory:
    """A VM, its memory, and its second MMU: pages 0 to n - 1, of which some were accessed."""

    def __init__(self, pages: int, accessed: set[int], pinned: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.pages: Any = self
        self.numbers = pages
        self.second = self
        self.backing = np.ones(pages, np.int64)
        self.accessed = accessed
        self.held = pinned
        self.flushes = 0

    def present(self) -> np.ndarray:
        return np.flatnonzero(self.backing & 1)

    def holds(self, gfn: int) -> bool:
        return bool(self.backing[gfn] & 1)

    def pinned(self, gfn: int) -> bool:
        return gfn in self.held

    def age(self, first: int, count: int, *, clear: bool) -> np.ndarray:
        found = np.array([gfn in self.accessed for gfn in range(first, first + count)])
        self.accessed -= {*range(first, first + count)} if clear else set()
        return found

    def forget(self, flush: Flush) -> None:
        self.flushes += 1


def chosen(policy: Any, vms: list[Any], count: int) -> list[tuple[int, int]]:
    """Take so many pages; return of which VM each was, and which."""
    taken = []
    for _ in range(count):
        vm, gfn = policy.choose(vms)
        vm.backing[gfn] = 2
        taken.append((vms.index(vm), gfn))
    return taken


def test_the_clock_takes_what_was_not_accessed_and_then_what_was_once_round() -> None:
    """By hand: 0 and 2 have been accessed; the hand takes 1, 3, then those of the next VM, and comes back."""
    vms = [Memory(4, {0, 2}), Memory(2, set())]
    assert chosen(Clock(), vms, 6) == [(0, 1), (0, 3), (1, 0), (1, 1), (0, 0), (0, 2)]
    assert vms[0].flushes == 2  # once for each time that flags were cleared on the way
    assert Clock().choose(vms) is None


def test_the_clock_leaves_what_a_device_works_on() -> None:
    assert chosen(Clock(), [Memory(3, set(), {0, 2})], 1) == [(0, 1)]
    assert Clock().choose([Memory(1, set(), {0})]) is None


def test_any_page_is_taken_once_and_all_are_in_the_end() -> None:
    vms = [Memory(5, set()), Memory(3, set())]
    policy = AnyPage(7)
    taken = []
    while any(len(vm.present()) for vm in vms):
        if (victim := policy.choose(vms)) is not None:
            victim[0].backing[victim[1]] = 2
            taken.append((vms.index(victim[0]), victim[1]))
    assert sorted(taken) == [(0, gfn) for gfn in range(5)] + [(1, gfn) for gfn in range(3)]


def test_the_keys_that_no_daemon_may_have_are_those_of_every_host() -> None:
    assert {*Host.model_fields} - {*host_daemons()} - {*policies()} == RESERVED
