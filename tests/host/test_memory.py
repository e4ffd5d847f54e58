"""Does the host hand out frames by its watermarks, in order, and lose none?"""

from __future__ import annotations

import csv
import re
import tracemalloc
from fractions import Fraction
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.simulation.small import scenario, vm
from vmsim.base.clock import Clock
from vmsim.frames.records import MAX_ORDER, NO_FRAME, State
from vmsim.host.memory import HOST, HostMemory
from vmsim.scenario import Marks
from vmsim.tables.words import places_of

with (files("vmsim.validation") / "data" / "linux_watermarks.csv").open(encoding="utf-8") as lines:
    RULES = list(csv.DictReader(lines))
EXAMPLES = [(row["example_in"], int(row["example_out"])) for row in RULES if row["example_in"]]


def marks(memory_kib: int) -> Marks:
    keys: Any = {"memory": f"{memory_kib}KiB", "watermarks": {}}
    return scenario(vm(), **keys).watermarks


@pytest.mark.parametrize(("memory", "kib"), EXAMPLES)
def test_the_min_watermark_follows_linux(memory: str, kib: int) -> None:
    assert marks(int(memory.removesuffix(" kB"))).min * 4 == kib


@pytest.mark.parametrize("memory", [1 << 14, 1 << 20, 1 << 24, 3 << 24])
def test_low_and_high_follow_linux(memory: int) -> None:
    shares = [(row["quantity"], re.match(r"(\d+)/(\d+) of min", row["rule"])) for row in RULES]
    share = {name: Fraction(int(found[1]), int(found[2])) for name, found in shares if found}
    found = marks(memory)
    assert found.low == found.min * share["low"] // 1
    assert found.high == found.min * share["high"] // 1


def test_the_min_watermark_is_clamped() -> None:
    assert marks(1 << 12).min * 4 == 16 * 16  # sqrt(16 * 4096) = 256 KiB: above the floor
    assert marks(900).min * 4 == 128
    assert marks(1 << 32).min * 4 == 262144


def pages(event: simpy.Event) -> np.ndarray:
    """Return what a request was granted."""
    return np.asarray(event.value)


def host(frames: int = 64, low: tuple[int, int, int] = (8, 10, 12)) -> HostMemory:
    return HostMemory(Clock(), frames, Marks(*low))


def test_a_take_leaves_its_reserve() -> None:
    memory = host()
    assert len(memory.take(0, 100, State.GUEST, reserve=10)) == 54
    assert memory.free == 10
    assert len(memory.take(0, 100, State.GUEST, reserve=10)) == 0
    assert len(memory.take(0, 100, State.GUEST)) == 10
    assert len(memory.take(0, 1, State.GUEST)) == 0


def test_a_block_that_is_wanting_is_a_failure_and_want_of_memory_is_none() -> None:
    memory = host(64, (0, 0, 0))
    pfns = memory.take(0, 64, State.GUEST)
    assert memory.take_block(3, 1, State.GUEST) == NO_FRAME
    assert not memory.has_block(3, 1)
    assert not memory.failures  # nothing was free
    memory.give(pfns[::2].copy())
    assert memory.unusable(1) == 1.0
    assert memory.take_block(3, 1, State.GUEST) == NO_FRAME
    assert not memory.has_block(3, 2)
    assert memory.failures == {(3, 1): 1, (3, 2): 1}
    memory.give(pfns[1:8:2].copy())
    assert memory.has_block(3, 3)
    assert not memory.has_block(3, 4)
    assert memory.unusable(3) == 28 / 36
    assert memory.failures == {(3, 1): 1, (3, 2): 1, (3, 3): 0, (3, 4): 1}


def test_a_block_is_refused_that_would_go_below_the_min_watermark() -> None:
    memory = host(64, (16, 20, 24))
    assert memory.take_block(0, 5, State.GUEST) != NO_FRAME
    assert memory.take_block(0, 5, State.GUEST) == NO_FRAME  # there is one: it is reserved
    assert memory.take_block(0, 4, State.GUEST) != NO_FRAME
    assert memory.free == 16


def test_a_request_is_granted_what_there_is_above_the_min_watermark() -> None:
    memory = host()
    event = memory.request(HOST, 100, State.HOST, asker=3)
    assert event.triggered
    assert len(pages(event)) == 56
    later = memory.request(HOST, 5, State.HOST, asker=4)
    assert not later.triggered
    assert memory.first_request.asker == 4
    memory.give(pages(event)[:3])
    assert len(pages(later)) == 3


def test_requests_are_granted_first_come_first_served() -> None:
    memory = host()
    held = memory.take(0, 56, State.GUEST)
    events = [memory.request(owner, count, State.GUEST, asker=owner) for owner, count in ((1, 10), (2, 1), (3, 10))]
    memory.give(held[:5])
    assert [event.triggered for event in events] == [True, False, False]
    memory.give(held[5:10])
    assert [event.triggered for event in events] == [True, True, True]
    assert [len(pages(event)) for event in events] == [5, 1, 4]
    assert not memory.starving


def test_reclaim_is_called_below_low_and_when_a_request_waits() -> None:
    memory = host()
    memory.take(0, 54, State.GUEST)
    assert not memory.low.triggered  # 10 are free: at low, not below it
    memory.take(0, 1, State.GUEST)
    assert memory.low.triggered
    other = host(64, (64, 64, 64))
    other.request(0, 1, State.GUEST, asker=0)
    assert other.low.triggered


class HostMachine(RuleBasedStateMachine):
    """A host's memory against a dict of frame → (owner, state) and a list of those who wait."""

    size, marks = 600, Marks(8, 10, 12)  # no power of two: blocks of several orders at the end

    def __init__(self) -> None:
        super().__init__()
        self.host = HostMemory(Clock(), self.size, self.marks)
        self.model: dict[int, tuple[int, int]] = {}
        self.blocks: list[tuple[int, int]] = []  # (first frame, order) of what was taken and not given back
        self.waiting: list[tuple[int, int, Any]] = []  # (owner, count, event)

    def add(self, pfns: Any, owner: int, state: State, order: int = 0) -> None:
        for pfn in np.asarray(pfns).tolist():
            self.blocks.append((pfn, order))
            for each in range(pfn, pfn + (1 << order)):
                assert each not in self.model
                self.model[each] = owner, int(state)

    def served(self) -> None:
        """Move what was granted into the model: always from the front."""
        while self.waiting and self.waiting[0][2].triggered:
            owner, count, event = self.waiting.pop(0)
            assert 1 <= len(event.value) <= count
            self.add(event.value, owner, State.GUEST)
        assert not any(event.triggered for _, _, event in self.waiting)

    @rule(owner=st.integers(0, 3), count=st.integers(1, 200), reserve=st.sampled_from([0, 8, 100]))
    def take(self, owner: int, count: int, reserve: int) -> None:
        free = self.host.free
        pfns = self.host.take(owner, count, State.GUEST, reserve=reserve)
        assert len(pfns) == max(0, min(count, free - reserve))
        self.add(pfns, owner, State.GUEST)

    @rule(
        owner=st.integers(0, 3),
        order=st.sampled_from([0, 1, 3, 9]),
        state=st.sampled_from([State.GUEST, State.TABLE]),
    )
    def take_block(self, owner: int, order: int, state: State) -> None:
        pfn = self.host.take_block(owner, order, state)
        if pfn != NO_FRAME:
            assert pfn % (1 << order) == 0
            self.add([pfn], owner, state, order)

    @rule(owner=st.integers(0, 3), count=st.integers(1, 200))
    def request(self, owner: int, count: int) -> None:
        self.waiting.append((owner, count, self.host.request(owner, count, State.GUEST, asker=owner)))
        self.served()

    @precondition(lambda self: self.blocks)
    @rule(data=st.data())
    def give(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.blocks), min_size=1, max_size=30, unique=True))
        for order in sorted({order for _, order in chosen}):
            pfns = [pfn for pfn, each in chosen if each == order]
            for pfn in pfns:
                self.blocks.remove((pfn, order))
                for each in range(pfn, pfn + (1 << order)):
                    del self.model[each]
            self.host.give(np.array(pfns), order)
            self.served()

    @rule(owner=st.integers(0, 3))
    def give_all(self, owner: int) -> None:
        theirs = [pfn for pfn, (each, _) in self.model.items() if each == owner]
        for pfn in theirs:
            del self.model[pfn]
        self.blocks = [block for block in self.blocks if block[0] in self.model]
        assert self.host.give_all(owner) == len(theirs)
        self.served()

    @invariant()
    def every_frame_has_one_owner_and_one_state(self) -> None:
        frames = self.host.frames
        owners, states = np.full(self.size, -1), np.zeros(self.size, int)
        for pfn, (owner, state) in self.model.items():
            owners[pfn], states[pfn] = owner, state
        assert (frames["owner"][states != State.FREE] == owners[states != State.FREE]).all()
        assert (frames["state"] == states).all()
        assert self.host.free == self.size - len(self.model)
        for owner in range(4):
            assert sum(self.host.count(owner).values()) == np.count_nonzero(owners == owner)

    @invariant()
    def free_blocks_are_listed_once_and_cannot_merge_further(self) -> None:
        """A buddy pair is never free twice over: it would be one block of the next order."""
        frames, heads = self.host.frames, self.host.zone["heads"][0]
        blocks: dict[int, int] = {}
        for mobility, order in np.ndindex(2, MAX_ORDER + 1):
            block = int(heads[mobility, order])
            while block != NO_FRAME:
                assert block % (1 << order) == 0
                assert blocks.setdefault(block, order) == order
                block = int(frames["next"][block])
        listed = [pfn for block, order in blocks.items() for pfn in range(block, block + (1 << order))]
        assert sorted(listed) == sorted(set(range(self.size)) - set(self.model))
        for block, order in blocks.items():
            assert blocks.get(block ^ (1 << order)) != order or order == MAX_ORDER

    @invariant()
    def nobody_waits_who_could_be_served(self) -> None:
        assert self.host.starving == bool(self.waiting)
        if self.waiting:
            assert self.host.free <= self.marks.min
            assert self.host.low.triggered


HostMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestHostMachine = HostMachine.TestCase


def test_looking_through_a_long_array_copies_none_of_it() -> None:
    """8 bytes a page would be 2 GiB for a VM of 1 TiB that has used next to nothing of it."""
    words = np.zeros(5 << 20, np.int64)
    words[[3, 1 << 20, (5 << 20) - 1]] = 5, 1, 4
    tracemalloc.start()
    try:
        assert places_of(words, 4).tolist() == [3, (5 << 20) - 1]
        assert places_of(words, 5, 4).tolist() == [(5 << 20) - 1]
        assert tracemalloc.get_traced_memory()[1] < words.nbytes / 2
    finally:
        tracemalloc.stop()
    assert places_of(words[:0], 4).tolist() == []
