"""Does each node hand out its own frames, to whom its policy sends there, and the nearest others when it has none?"""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from tests.oracle.buddy import Buddy
from vmsim.frames.buddy import allocate, allocate_for, allocate_many, allocate_on, free, free_owned, owned
from vmsim.frames.nodes import NodeMarks, Nodes, make_nodes, marks_of, node_of, set_policy
from vmsim.frames.records import INTERLEAVED, MAX_ORDER, NO_FRAME, PAGEBLOCK, State

ASKED = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
KERNEL = -1


class NodesMachine(RuleBasedStateMachine):
    """Blocks of three nodes, the last of which has no turn, are handed out and come back."""

    blocks = Bundle("blocks")

    @initialize(sizes=st.tuples(*[st.sampled_from([1, 37, 512, 1100])] * 3))
    def start(self, sizes):
        self.marks = [marks_of(size, sum(sizes), 60, 90, 120) for size in sizes]
        self.zones, self.frames = make_nodes(*Nodes(sizes, ASKED, 2, self.marks))
        firsts = np.cumsum([0, *sizes]).tolist()
        self.twins = [Buddy(n, MAX_ORDER, PAGEBLOCK, first) for n, first in zip(sizes, firsts, strict=False)]
        self.policy = dict.fromkeys((KERNEL, 1, 2), (0, 0))
        self.among = dict.fromkeys((KERNEL, 1, 2), (0, 1))
        self.owner: dict[int, int] = {}
        self.turn = 0

    @rule(
        owner=st.sampled_from([1, 2]),
        pages=st.integers(INTERLEAVED, 2),
        tables=st.integers(INTERLEAVED, 2),
        among=st.sampled_from([(), (), (0,), (1,), (0, 1)]),
    )
    def prefer(self, owner, pages, tables, among):
        self.policy[owner], self.among[owner] = (pages, tables), among or (0, 1)
        set_policy(self.zones, owner, pages=pages, tables=tables, among=among)

    def _node(self, whose, order, table):
        """Return the node that is to give the next block, by asking one after the other; None: nobody can."""
        first = self.policy[whose][table]
        if first == INTERLEAVED:
            first = self.turn if self.turn in self.among[whose] else 1 - self.turn
            self.turn = (first + 1) % 2
        able = [node for node in ASKED[first] if self.twins[node].source(order, table)]
        left = {node: self._free(node) - (1 << order) for node in able}
        for mark in ("low", "min"):
            if enough := [node for node in able if left[node] >= getattr(self.marks[node], mark)]:
                return enough[0]
        return able[0] if able else None

    def _free(self, node):
        return sum(1 << order for _, order in self.twins[node].free)

    @rule(target=blocks, order=st.sampled_from([0, 0, 1, 5, 9]), owner=st.integers(1, 2), table=st.booleans())
    def take(self, order, owner, table):
        node = self._node(owner, order, table)
        pfn = int(allocate(self.zones, self.frames, order, State.TABLE if table else State.GUEST, owner))
        assert (pfn == NO_FRAME) == (node is None)
        if node is not None:
            self.twins[node].take(pfn, order, table)
            self.owner[pfn] = owner
        return pfn

    @rule(count=st.integers(0, 9), whose=st.integers(1, 2), kernel=st.booleans())
    def take_many(self, count, whose, kernel):
        pfns = np.zeros(count, np.int64)
        given = self.zones, self.frames
        if kernel:  # as of a pool that is filled: the kernel's until it is handed over, and from the VM's node
            got = allocate_for(*given, State.HOST, KERNEL, whose, pfns)
        else:
            got = allocate_many(*given, 0, State.GUEST, whose, pfns)
        for pfn in pfns[:got].tolist():
            self.twins[self._node(whose, 0, False)].take(pfn, 0, False)
            self.owner[pfn] = KERNEL if kernel else whose
        assert got == count or self._node(whose, 0, False) is None

    @rule(target=blocks, node=st.integers(0, 2), order=st.sampled_from([0, 1, 9]), least=st.sampled_from([0, 5, 40]))
    def take_there(self, node, order, least):
        """Take a block of one node alone, as who moves pages does, and leave so many frames of it."""
        pfns = np.full(1, NO_FRAME)
        got = allocate_on(self.zones, self.frames, node, order, State.GUEST, 1, least, pfns)
        twin = self.twins[node]
        assert got == (self._free(node) - (1 << order) >= least and twin.source(order, False) is not None)
        if got:
            twin.take(int(pfns[0]), order, False)
            self.owner[int(pfns[0])] = 1
        return int(pfns[0])

    @rule(pfn=consumes(blocks))
    def give(self, pfn):
        if pfn in self.owner:
            del self.owner[pfn]
            twin = self.twins[int(node_of(self.zones, np.array([pfn]))[0])]
            free(self.zones, self.frames, pfn, twin.give(pfn))

    @rule(owner=st.sampled_from([KERNEL, 1, 2]))
    def destroy(self, owner):
        pfns = [pfn for pfn, each in self.owner.items() if each == owner]
        free_owned(self.zones, self.frames, owner)
        for pfn in pfns:
            next(twin for twin in self.twins if pfn in twin.taken).give(pfn)
            del self.owner[pfn]

    @invariant()
    def every_node_lists_its_own_free_blocks(self):
        if not hasattr(self, "zones"):
            return
        for twin, zone in zip(self.twins, self.zones[1:], strict=True):
            found = set()
            for (_, order), head in np.ndenumerate(zone.heads):
                pfn = int(head)
                while pfn != NO_FRAME:
                    found.add((pfn, order))
                    pfn = int(self.frames[pfn]["next"])
            assert found == twin.free
        counts = [sum(1 << order for _, order in twin.free) for twin in self.twins]
        assert self.zones["free"][1:].tolist() == counts
        assert int(self.zones[0].free) == sum(counts)
        for owner in (KERNEL, 1, 2):
            theirs = [pfn for twin in self.twins for pfn in twin.taken if self.owner[pfn] == owner]
            blocks = [range(pfn, pfn + (1 << self._order(pfn))) for pfn in theirs]
            assert owned(self.zones, self.frames, owner).tolist() == sorted(pfn for block in blocks for pfn in block)

    def _order(self, pfn):
        return next(twin.taken[pfn] for twin in self.twins if pfn in twin.taken)


TestNodesMachine = NodesMachine.TestCase
TestNodesMachine.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


def test_a_block_does_not_reach_over_the_end_of_a_node():
    zones, _ = make_nodes(*Nodes((3, 4), ((0, 1), (1, 0)), 2))
    assert [int(zone.heads[0, 1]) for zone in zones[1:]] == [0, 4]
    assert [int(zone.heads[0, 0]) for zone in zones[1:]] == [2, 3]
    assert [int(zone.heads[0, 2]) for zone in zones[1:]] == [NO_FRAME, NO_FRAME]


def test_a_node_has_its_share_of_what_a_host_keeps_free():
    # __setup_per_zone_wmarks: pages_min * managed / all; and promo one step above high.
    assert marks_of(300, 1200, 40, 60, 100) == NodeMarks(10, 15, 25, 35)


def test_nodes_are_filled_to_their_low_watermarks_one_after_the_other_and_then_to_min():
    marks = [NodeMarks(2, 4, 6, 8), NodeMarks(1, 3, 5, 7)]
    zones, frames = make_nodes(*Nodes((10, 10), ((0, 1), (1, 0)), 2, marks))
    pfns = np.empty(20, np.int64)
    assert allocate_many(zones, frames, 0, State.GUEST, 1, pfns) == 20
    # 6 of node 0, 7 of node 1; 2 and 2 more down to min; what is left is for who may have it.
    assert node_of(zones, pfns).tolist() == [0] * 6 + [1] * 7 + [0] * 2 + [1] * 2 + [0] * 2 + [1]


def test_pages_are_demoted_to_the_nearest_of_the_next_slower_memory():
    nodes = Nodes((1, 1, 1, 1), ((0, 1, 3, 2), (1, 0, 2, 3), (2, 0, 1, 3), (3, 0, 1, 2)), 2, tiers=(0, 0, 1, 2))
    assert [nodes.below(node) for node in range(4)] == [2, 2, 3, None]
