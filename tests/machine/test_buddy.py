"""Does the buddy allocator keep every frame exactly once, aligned and coalesced?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from tests.oracle.buddy import Buddy
from vmsim.frames.buddy import allocate, allocate_many, free, free_many, free_owned, hand_over, make_zone, owned, use
from vmsim.frames.records import MAX_ORDER, NO_FRAME, PAGEBLOCK, State

ORDERS = st.sampled_from([0, 0, 1, 2, 5, 8, 9, 10])
STATES = st.sampled_from([State.GUEST, State.POOL, State.TABLE])
OWNERS = st.integers(1, 2)


class BuddyMachine(RuleBasedStateMachine):
    """Blocks are handed out and come back in any order."""

    blocks = Bundle("blocks")

    @initialize(size=st.sampled_from([1, 37, 64, 200, 512, 1100, 2048, 3000]))
    def start(self, size):
        self.zone, self.frames = make_zone(size)
        self.twin = Buddy(size, MAX_ORDER, PAGEBLOCK)
        self.owner: dict[int, int] = {}  # of the blocks handed out

    def _took(self, pfn: int, order: int, owner: int, state: State) -> None:
        self.twin.take(pfn, order, state == State.TABLE)
        self.owner[pfn] = owner

    @rule(target=blocks, order=ORDERS, owner=OWNERS, state=STATES)
    def take(self, order, owner, state):
        possible = self.twin.source(order, state == State.TABLE) is not None
        pfn = int(allocate(self.zone, self.frames, order, state, owner))
        assert (pfn != NO_FRAME) == possible
        if possible:
            self._took(pfn, order, owner, state)
        return pfn

    @rule(order=ORDERS, owner=OWNERS, count=st.integers(0, 6), state=STATES)
    def take_many(self, order, owner, count, state):
        pfns = np.full(count, -7)
        got = int(allocate_many(self.zone, self.frames, order, state, owner, pfns))
        for pfn in pfns[:got].tolist():
            self._took(pfn, order, owner, state)
        assert got == count or self.twin.source(order, state == State.TABLE) is None
        assert (pfns[got:] == -7).all()

    @rule(pfn=consumes(blocks))
    def give(self, pfn):
        if pfn in self.owner:  # not given back with its owner
            del self.owner[pfn]
            free(self.zone, self.frames, pfn, self.twin.give(pfn))

    @rule(order=ORDERS)
    def give_many(self, order):
        pfns = [pfn for pfn, size in self.twin.taken.items() if size == order]
        free_many(self.zone, self.frames, order, np.array(pfns, np.int64))
        for pfn in pfns:
            self.twin.give(pfn)
            del self.owner[pfn]

    @rule(owner=OWNERS)
    def destroy(self, owner):
        pfns = [pfn for pfn, each in self.owner.items() if each == owner]
        assert free_owned(self.zone, self.frames, owner) == sum(1 << self.twin.taken[pfn] for pfn in pfns)
        for pfn in pfns:
            self.twin.give(pfn)
            del self.owner[pfn]

    @invariant()
    def the_free_blocks_are_the_twins(self):
        if not hasattr(self, "zone"):
            return
        zone = self.zone[0]
        found = set()
        for (mobility, order), head in np.ndenumerate(zone.heads):
            before, pfn = NO_FRAME, int(head)
            while pfn != NO_FRAME:
                assert self.frames[pfn]["prev"] == before
                assert self.frames[pfn]["block"] == order + 1
                assert self.twin.is_unmovable(pfn) == bool(mobility)
                found.add((pfn, order))
                before, pfn = pfn, int(self.frames[pfn]["next"])
        assert found == self.twin.free
        assert int(zone.free) == sum(1 << order for _, order in found)
        starts = np.flatnonzero(self.frames["block"])
        assert set(starts.tolist()) == {pfn for pfn, _ in found}

    @invariant()
    def every_frame_has_one_owner_and_one_state(self):
        if not hasattr(self, "zone"):
            return
        owner = np.full(len(self.frames), -1)
        for pfn, order in self.twin.taken.items():
            owner[pfn : pfn + (1 << order)] = self.owner[pfn]
        assert (self.frames["owner"] == owner)[owner != -1].all()
        for each in (1, 2):
            assert owned(self.zone, self.frames, each).tolist() == np.flatnonzero(owner == each).tolist()
        assert ((self.frames["state"] == State.FREE) == (owner == -1)).all()
        assert not self.frames["rmap"][owner == -1].any()


TestBuddyMachine = BuddyMachine.TestCase
TestBuddyMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_low_addresses_are_handed_out_first():
    zone, frames = make_zone(64)
    assert [int(allocate(zone, frames, 0, State.GUEST, 1)) for _ in range(64)] == list(range(64))
    assert allocate(zone, frames, 0, State.GUEST, 1) == NO_FRAME


def test_a_new_owner_and_use_are_noted_of_the_frames_named_and_no_others():
    zone, frames = make_zone(8)
    pfn = int(allocate(zone, frames, 2, State.POOL, 3))
    hand_over(zone, frames, np.array([pfn, pfn + 2]), 1, State.TABLE)
    use(frames, np.array([pfn + 3]), State.GUEST)
    assert frames["state"][pfn : pfn + 4].tolist() == [State.TABLE, State.POOL, State.TABLE, State.GUEST]
    assert frames["owner"][pfn : pfn + 4].tolist() == [1, 3, 1, 3]
    assert [owned(zone, frames, owner).tolist() for owner in (1, 3)] == [[pfn, pfn + 2], [pfn + 1, pfn + 3]]


def test_frames_that_were_never_allocated_cost_no_memory():
    before = Path("/proc/self/statm").read_text().split()[1]
    zone, frames = make_zone(1 << 30)  # of a host of 4 TiB: 22 GB of records, were they written
    assert int(zone["free"][0]) == 1 << 30
    pfn = int(allocate(zone, frames, 9, State.GUEST, 0))
    assert pfn == 0
    grown = (int(Path("/proc/self/statm").read_text().split()[1]) - int(before)) * 4096
    assert grown < 64 << 20


def test_tables_lie_in_pageblocks_of_their_own():
    zone, frames = make_zone(4 << PAGEBLOCK)
    page = int(allocate(zone, frames, 0, State.GUEST, 1))
    table = int(allocate(zone, frames, 0, State.TABLE, 1))
    assert page >> PAGEBLOCK != table >> PAGEBLOCK
    assert int(allocate(zone, frames, 0, State.TABLE, 1)) >> PAGEBLOCK == table >> PAGEBLOCK
    assert int(allocate(zone, frames, 0, State.GUEST, 1)) >> PAGEBLOCK == page >> PAGEBLOCK
