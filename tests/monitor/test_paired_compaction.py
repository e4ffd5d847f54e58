"""Does a contiguous table get its two pages when free memory is in single frames, and what does that cost?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.monitor.test_paired_space import CPU
from tests.oracle.buddy import Buddy
from vmsim.base.clock import Clock
from vmsim.contracts import Flush
from vmsim.frames.records import MAX_ORDER, PAGEBLOCK, State
from vmsim.host.daemons.compaction import Compaction
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.memory import HostMemory
from vmsim.machine.formats import EPT
from vmsim.machine.memory import find_entry, physical_memory
from vmsim.monitor.paired.check import difference
from vmsim.monitor.paired.layout import PairedHost
from vmsim.monitor.paired.space import PairedSpace
from vmsim.scenario import Marks

FRAMES = 1024

WAIT = 4321  # cycles until the page's VM has left the guest


class Host:
    """A host all of whose frames one VM has, but for some given back one by one.

    It is the VM's second MMU too, and maps what was zapped when the page has been moved, as the next access would have.
    """

    def __init__(self, holes: Any, *, layout: Any = "contiguous", low: int = 0) -> None:
        self.host = HostMemory(Clock(), FRAMES, Marks(low, low, low))
        self.memory = physical_memory(FRAMES)
        self.compaction = Compaction(self.host)
        self.shared = PairedHost(self.memory, self.host, CPU, compaction=self.compaction, pointers=layout == "pointer")
        self.flushes = 0
        self.space = PairedSpace(self.shared, EPT(ad_bits=True), owner=0, levels=4, layout=layout, guest=True)
        self.slot = GuestMemory(self.host, self.memory, owner=0, pages=FRAMES)
        self.slot.second = self  # type: ignore[assignment]
        self.compaction.add(self.slot, self.flush)
        self.space.install(self.table())
        while (missing := self.space.missing(self.next, 1)) >= 0 and self.host.free > 2 * missing:
            tables = [self.table() for _ in range(missing)]
            frame = int(self.host.take(0, 1, State.GUEST)[0])
            self.slot.arrived(self.next >> 12, frame, 0)
            self.space.map(self.next, 1, frame, tables)
        for number in holes(self.space.work["updates"]):
            self.slot.take(number, 1, 0)
        self.work = self.space.work.copy()
        self.pages = self.content()

    @property
    def next(self) -> int:
        return self.space.work["updates"] * 4096

    def zap(self, first: int, count: int) -> Flush:
        work = self.space.work.copy()
        gone = self.space.unmap(first * 4096, (first + count) * 4096)
        self.space.work.clear()
        self.space.work.update(work)
        return Flush(nested=len(gone.values) > 0)

    def zap_each(self, gfns: np.ndarray) -> Flush:
        return sum((self.zap(gfn, 1) for gfn in gfns.tolist()), Flush())

    def flush(self, flush: Flush) -> int:
        assert flush.nested
        self.flushes += 1
        return WAIT

    def fault(self) -> None:
        """Map every page where the host has it."""
        work = self.space.work.copy()
        for gfn in self.slot.present().tolist():
            if self.space.missing(gfn * 4096, 1) == 0:
                self.space.map(gfn * 4096, 1, self.slot.frame_of(gfn), [])
        self.space.work.clear()
        self.space.work.update(work)

    def table(self, owner: int = 0) -> tuple[int, int]:
        pair = self.shared.take(owner, self.space.layout, guest=True, work=self.space.work)
        assert pair is not None
        return pair

    def content(self) -> set[int]:
        """Return the addresses that are mapped."""
        mapped = {number * 4096 for number in range(FRAMES)}
        return {address for address in mapped if self.space.missing(address, 1) < 0}

    def check(self) -> None:
        """Nothing was lost, both tables agree, every frame has one owner, and the free lists hold the free ones."""
        self.fault()
        assert self.content() == self.pages
        space, frames = self.space, self.host.frames
        assert difference(self.memory, space.kpt, space.ept, 4, space.limit) is None
        mapped = np.flatnonzero((frames["owner"] == 0) & (frames["state"] == State.GUEST))
        assert len(mapped) == len(self.pages)
        places = [find_entry(self.memory, space.ept, 4, 1, gfn - 1 << 12)[0] for gfn in frames["rmap"][mapped].tolist()]
        assert (self.memory[np.array(places) >> 3] >> 12 & (1 << 40) - 1 == mapped).all()
        assert int(np.count_nonzero(frames["state"] == State.FREE)) == self.host.free


def every_second(pages: int) -> range:
    return range(0, pages, 2)


def test_single_frames_alone_make_no_pair_until_pages_are_moved() -> None:
    host = Host(every_second)
    assert host.host.unusable(1) == 1.0
    free = host.host.free
    first, second = host.table(owner=1)
    assert (first % 2, second) == (0, first + 1)
    assert host.host.free == free - 2
    assert host.host.count(1) == {"host": 0, "pool": 0, "guest": 0, "table": 2}
    done = host.shared.compacted(1)
    assert (host.host.failures[1, 1], done["compactions"], done["pages_moved"], host.flushes) == (1, 1, 1, 1)
    host.check()


def test_a_move_costs_a_copy_the_host_s_note_and_entry_and_a_shootdown() -> None:
    host = Host(every_second)
    host.table(owner=1)
    work = host.space.work - host.work
    assert {name: work[name] for name in ("copy", "store", "shootdown", "table", "zero")} == {
        "copy": 1, "store": 2, "shootdown": WAIT, "table": 1, "zero": 2}  # fmt: skip
    assert work["scan"] >= 1
    steps = CPU.cost.copy_page + (2 + work["scan"]) * CPU.cost.entry_edit + WAIT
    assert host.shared.compacted(1)["cycles"] == steps


def test_no_failure_where_a_block_is_free() -> None:
    host = Host(lambda pages: range(pages // 2))
    host.table(owner=1)
    assert not host.host.failures
    assert not any(host.shared.compacted(1).values())
    assert not host.flushes


def waited_for(host: Host) -> tuple[int, int]:
    """Have owner 1 wait for a table until the host has memory again, and return its frames."""
    marks, most = host.host.marks, host.host.free
    host.host.marks = Marks(most, most, most)
    steps = host.shared.wait(lambda event, _: (yield event), 1, "contiguous", guest=True, work=host.space.work)
    event = next(steps)
    assert not event.triggered
    assert not host.host.failures  # of memory there is too little, whatever its shape
    host.host.marks = marks
    host.host.returned(0)
    host.host.env.run()
    with pytest.raises(StopIteration) as end:
        next(steps)
    pair: tuple[int, int] = end.value.value
    return pair


def test_who_has_waited_for_memory_takes_a_free_block_before_pages_are_moved() -> None:
    """Linux mm/page_alloc.c, __alloc_pages_slowpath: the free lists are looked at again before direct compaction.

    Half of the pages are free in blocks, and every second one of the others, which are given out first.
    """
    host = Host(lambda pages: [*range(pages // 2), *range(pages // 2, pages, 2)])
    free = host.host.free
    first, second = waited_for(host)
    assert (first % 2, second) == (0, first + 1)
    assert host.host.free == free - 2
    assert not host.host.failures
    assert not any(host.shared.compacted(1).values())
    host.check()


def test_who_has_waited_for_single_frames_has_failed_once_for_a_block_that_is_made() -> None:
    host = Host(every_second)
    first, second = waited_for(host)
    assert (first % 2, second) == (0, first + 1)
    done = host.shared.compacted(1)
    assert (host.host.failures[1, 1], done["compactions"], done["pages_moved"]) == (1, 1, 1)
    host.check()


@pytest.mark.parametrize("layout", ["pointer", "separate"])
def test_other_layouts_take_any_two_frames(layout: str) -> None:
    host = Host(every_second, layout=layout)
    host.table(owner=1)
    assert not host.host.failures
    host.check()


def test_want_of_memory_is_no_failure_of_order_1() -> None:
    host = Host(lambda pages: [0])
    assert host.shared.take(1, "contiguous", guest=True, work=host.space.work) is None
    assert not host.host.failures


def test_pages_that_cannot_be_moved_make_compaction_fail_and_nothing_is_lost() -> None:
    """They are another kernel's: nobody registered how to move them."""
    host = Host(every_second)
    host.compaction.memories.clear()
    free = host.host.free
    assert host.shared.take(1, "contiguous", guest=True, work=host.space.work) is None
    assert (host.host.failures[1, 1], host.shared.compacted(1)["compactions"]) == (1, 0)
    assert host.shared.compacted(1)["cycles"] > 0  # of looking in vain
    assert host.host.free == free
    host.check()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 30), share=st.floats(0.05, 0.9), tables=st.integers(1, 20))
def test_any_holes_give_pairs_while_two_frames_are_free(seed: int, share: float, tables: int) -> None:
    random = np.random.default_rng(seed)
    host = Host(lambda pages: random.choice(pages, int(share * pages), replace=False).tolist())
    taken: list[int] = []
    while len(taken) < 2 * tables and host.host.free >= 2:
        taken += host.table(owner=1)
    assert len(set(taken)) == len(taken)
    assert all(first % 2 == 0 and second == first + 1 for first, second in zip(taken[::2], taken[1::2], strict=True))
    done = host.shared.compacted(1)
    assert host.host.failures[1, 1] == done["compactions"]
    assert host.flushes == done["pages_moved"]
    host.check()


def test_the_order_1_failures_are_those_of_a_buddy_allocator() -> None:
    """The oracle's free blocks, made from the same free frames, say when no block of two is left."""
    host = Host(lambda pages: [*range(0, 60), *range(60, 300, 2)])
    free = np.flatnonzero(host.host.frames["state"] == State.FREE)
    buddy = Buddy(0, MAX_ORDER, PAGEBLOCK)
    for pfn in free.tolist():
        buddy._give(pfn, 0)
    blocks = sum(1 << order >> 1 for _, order in buddy.free)
    for _ in range(blocks):
        host.table(owner=1)
    assert not host.host.failures
    host.table(owner=1)
    assert host.host.failures[1, 1] == 1
