"""Does khugepaged collapse what Linux's would, and do two scanners move what Linux's would? Against plain twins."""

from __future__ import annotations

from collections import Counter
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.oracle.huge import BLOCK, Khugepaged, TwoScanners
from vmsim.base.clock import Clock
from vmsim.contracts import NO_FLUSH, Flush
from vmsim.frames.buddy import allocate, free
from vmsim.frames.records import UNMOVABLE, State
from vmsim.host.daemons.compaction import Compaction
from vmsim.host.daemons.thp.khugepaged import HostKhugepaged
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.memory import HostMemory
from vmsim.machine.memory import physical_memory
from vmsim.scenario import Marks, load_cpu
from vmsim.scenario.thp import Khugepaged as Told
from vmsim.scenario.thp import ThpSpec
from vmsim.tables.backing import BALLOONED

COST = load_cpu("yardstick").cost


class Entries:
    """A second MMU that maps nothing and knows what was accessed."""

    def __init__(self, young: set[int]) -> None:
        self.young = young
        self.zapped: list[tuple[int, int]] = []

    def zap(self, first: int, count: int) -> Flush:
        self.zapped.append((first, count))
        return Flush(nested=True)

    def zap_each(self, gfns: np.ndarray) -> Flush:
        return Flush(nested=True)

    def age(self, first: int, count: int, *, clear: bool) -> np.ndarray:
        return np.array([gfn in self.young for gfn in range(first, first + count)])


def memory_of(host: HostMemory, words: np.ndarray, owner: int, kinds: list[str], young: set[int]) -> GuestMemory:
    """Return the memory of a VM whose pages are of these kinds; each page that is there holds its own number."""
    slot = GuestMemory(host, words, owner=owner, pages=len(kinds))
    slot.second = Entries(young)  # type: ignore[assignment]
    for gfn, kind in enumerate(kinds):
        if kind and kind != "huge":
            pfn = int(host.take(owner, 1, State.GUEST)[0])
            words[pfn << 9] = 1 + gfn
            slot.arrived(gfn, pfn, 0)
    for gfn, kind in enumerate(kinds):
        if kind == "swapped":
            slot.take(gfn, 1)
        elif kind == "shared":
            slot.share(gfn, slot.frame_of(gfn))
    for first in range(0, len(kinds), BLOCK):
        if kinds[first] == "huge":
            slot.arrived(first, host.take_block(owner, 9, State.GUEST), 9)
    return slot


def _note(flushed: Counter[int], owner: int, flush: Flush) -> int:
    flushed[owner] += flush != NO_FLUSH
    return 0


def drawn_kinds(random: Random, ranges: int) -> list[str]:
    kinds = []
    for _ in range(ranges):
        weights = random.choice([(1, 0, 0, 0), (8, 1, 0, 4), (4, 1, 4, 1), (1, 1, 1, 8), (0, 0, 0, 1), (5, 0, 1, 3)])
        kinds += (
            ["huge"] * BLOCK
            if random.random() < 0.15
            else random.choices(["own", "shared", "swapped", ""], weights, k=BLOCK)
        )
    return kinds


@pytest.mark.parametrize("seed", range(6))
def test_khugepaged_collapses_what_its_twin_does(seed: int) -> None:
    random = Random(seed)
    clock = Clock()
    host, words = HostMemory(clock, 16 * BLOCK, Marks(0, 0, 0)), physical_memory(16 * BLOCK)
    kinds = [drawn_kinds(random, random.randint(1, 3)) for _ in range(2)]
    dense = random.choice([0.9, 0.01])
    young = [{gfn for gfn, kind in enumerate(each) if kind in ("own", "shared") and random.random() < dense}
             for each in kinds]  # fmt: skip
    slots = [memory_of(host, words, owner, each, young[owner]) for owner, each in enumerate(kinds)]
    busy = set()
    for owner, slot in enumerate(slots):
        if len(there := slot.present()) and random.random() < 0.4:
            gfn = int(random.choice(there.tolist()))
            slot.held[gfn] += 1
            busy.add((owner, gfn))
    while random.random() < 0.9:
        host.take_block(7, 9, State.GUEST)
    free_blocks = sum(
        1 for first in range(0, 16 * BLOCK, BLOCK) if (host.frames["state"][first : first + BLOCK] == 0).all()
    )
    limits = random.choice([511, 200, 20]), random.choice([64, 300]), random.choice([256, 10])
    told = Told(random.choice([512, 1024, 4096]), 1, 1, *limits, False)
    flat = {(owner, gfn) for owner, each in enumerate(young) for gfn in each}
    twin = Khugepaged([[*each] for each in kinds], flat, busy, free_blocks, *limits)
    flushed: Counter[int] = Counter()
    vms = [
        SimpleNamespace(
            pages=slot,
            able=True,
            spec=SimpleNamespace(host_thp=True, index=owner),
            ledger=SimpleNamespace(counters=lambda *_: None),
            forget=partial(_note, flushed, owner),
        )
        for owner, slot in enumerate(slots)
    ]
    daemon = HostKhugepaged(ThpSpec(False, "never", told), COST)
    daemon.register(vms)
    held = [[int(slot.page(gfn)[0]) for gfn in range(len(slot.backing))] for slot in slots]
    for _ in range(8):
        steps: Any = daemon.batch(SimpleNamespace(host=host, env=clock), told)
        with pytest.raises(StopIteration) as end:
            next(steps)
        assert end.value.value[1] == twin.batch(told.pages)
    for owner, slot in enumerate(slots):
        assert +daemon.of[owner] == +twin.counts[owner]
        seen = slot.look(0, slot.ranges)
        assert seen.huge.tolist() == [twin.vms[owner][first] == "huge" for first in range(0, len(slot.backing), BLOCK)]
        assert [int(slot.page(gfn)[0]) for gfn in range(len(slot.backing))] == held[owner]
    assert daemon.counts["full_scans"] == twin.full_scans
    assert flushed.total() == sum(each["pages_collapsed"] for each in twin.counts)


def test_a_range_collapsed_costs_its_pages() -> None:
    """100 pages of 512: each copied and taken from where it lay, 412 cleared, one huge one allocated; by hand."""
    host, words = HostMemory(Clock(), 4 * BLOCK, Marks(0, 0, 0)), physical_memory(4 * BLOCK)
    slot = memory_of(host, words, 0, ["own"] * 100 + [""] * 412, {3})
    told = Told(512, 1, 1, 511, 0, 0, False)
    daemon = HostKhugepaged(ThpSpec(False, "never", told), COST)
    vm = SimpleNamespace(
        pages=slot,
        able=True,
        spec=SimpleNamespace(host_thp=True, index=0),
        ledger=SimpleNamespace(counters=lambda *_: None),
        forget=lambda flush: 777 if flush != NO_FLUSH else 0,
    )
    daemon.register([vm])
    steps: Any = daemon.batch(SimpleNamespace(host=host), told)
    with pytest.raises(StopIteration) as end:
        next(steps)
    by_hand = COST.context_switch + 512 * COST.log_scan + COST.host_fault + 777
    by_hand += 100 * (COST.copy_page + COST.host_zap) + 412 * COST.host_zero
    assert end.value.value == (by_hand, False)
    assert host.count(0)["guest"] == 512
    assert host.free == 4 * BLOCK - 512


def test_pages_in_the_balloon_are_empty_entries_to_khugepaged() -> None:
    host, words = HostMemory(Clock(), 4 * BLOCK, Marks(0, 0, 0)), physical_memory(4 * BLOCK)
    slot = memory_of(host, words, 0, ["own"] * BLOCK, {3})
    slot.take(0, 100, BALLOONED)
    seen = slot.look(0, 1)
    assert (int(seen.none[0]), int(seen.small[0])) == (100, 412)


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_scanners_move_what_their_twin_does(seed: int, direct: bool) -> None:
    random = Random(seed)
    blocks = 8
    host, words = HostMemory(Clock(), blocks * BLOCK, Marks(0, 0, 0)), physical_memory(blocks * BLOCK)
    slot = GuestMemory(host, words, owner=0, pages=blocks * BLOCK)
    slot.second = Entries(set())  # type: ignore[assignment]
    frames = ["free"] * (blocks * BLOCK)
    unmovable = {number for number in range(blocks) if random.random() < 0.15}
    for first in range(0, blocks * BLOCK, BLOCK):  # all of it is taken, then what is to be free given back
        assert int(allocate(host.zone, host.frames, 9, int(State.GUEST), 0)) == first
    for number in range(blocks):
        full = random.choice([0.3, 0.6, 0.9])
        odd = random.choice([0, 0, 0.01])
        for pfn in range(number * BLOCK, (number + 1) * BLOCK):
            if random.random() < full or pfn % BLOCK == 7:
                frames[pfn] = "fixed" if random.random() < odd else "page"
                words[pfn << 9] = pfn
                slot.arrived(pfn, pfn, 0)
                host.pins[pfn] = frames[pfn] == "fixed"
        if number in unmovable:
            host.frames["mobility"][number * BLOCK : (number + 1) * BLOCK] = UNMOVABLE
    for pfn, what in enumerate(frames):
        if what == "free":
            free(host.zone, host.frames, pfn, 0)
    twin = TwoScanners([*frames], unmovable)
    compaction = Compaction(host)
    compaction.add(slot, lambda flush: 10)
    before = {gfn: int(slot.page(gfn)[0]) for gfn in slot.present().tolist()}
    made, cycles = compaction.compact(9, COST, direct=direct)
    assert made == twin.compact(direct=direct)
    moved = [(pfn, slot.frame_of(pfn)) for pfn in slot.present().tolist() if slot.frame_of(pfn) != pfn]
    assert {*moved} == final(twin.moves)
    counts = compaction.scanners.counts
    assert counts["compact_migrate_scanned"] == twin.migrate_scanned
    assert counts["compact_free_scanned"] == twin.free_scanned
    assert counts["pgmigrate_success"] == len(twin.moves)
    looked = twin.migrate_scanned + twin.free_scanned
    assert cycles == looked * COST.log_scan + len(twin.moves) * (COST.copy_page + 2 * COST.violation_entry + 10)
    assert {gfn: int(slot.page(gfn)[0]) for gfn in slot.present().tolist()} == before
    assert (host.frames["state"] == State.FREE).sum() == host.free == frames.count("free")


def final(moves: list[tuple[int, int]]) -> set[tuple[int, int]]:
    """Return where each page has come from and gone to in the end."""
    came: dict[int, int] = {}
    for old, new in moves:
        came[new] = came.pop(old, old)
    return {(old, new) for new, old in came.items()}


def test_compaction_is_put_off_after_failures() -> None:
    """After n failures in a row 2**n attempts are passed over but the last, 64 at most (defer_compaction)."""
    host = HostMemory(Clock(), 4 * BLOCK, Marks(0, 0, 0))
    compaction = Compaction(host)
    kept = host.take(5, 4 * BLOCK, State.POOL)  # which cannot be moved
    host.give(kept[::2])
    tried = []
    for attempt in range(1, 300):
        before = compaction.scanners.counts["compact_fail"]
        compaction.compact(9, COST, direct=True)
        if compaction.scanners.counts["compact_fail"] > before:
            tried.append(attempt)
    assert tried[:7] == [1, 3, 7, 15, 31, 63, 127]
    assert tried[7:] == [191, 255]


def test_pages_put_together_hold_what_they_held_whatever_the_block_held_before() -> None:
    """Those that hold zeros and those that had nothing hold zeros; where the block moves as a whole, too."""
    host, words = HostMemory(Clock(), 8 * BLOCK, Marks(0, 0, 0)), physical_memory(8 * BLOCK)
    slot = memory_of(host, words, 0, ["own", "own", "shared", "swapped", "swapped", *[""] * (BLOCK - 5)], set())
    words[slot.frame_of(1) << 9] = 0
    slot.contents.pop(4)
    blocks = [host.take_block(0, 9, State.GUEST) for _ in range(2)]
    for block in blocks:
        words[block << 9 : (block + BLOCK) << 9] = -1
    for act in (lambda: slot.collapse(0, blocks[0]), lambda: slot.move_large(0, blocks[1])):
        act()
        first = [int(slot.page(gfn)[0]) for gfn in range(BLOCK)]
        assert first == [1, 0, 3, 4, 0] + [0] * (BLOCK - 5)
        assert all(not slot.page(gfn)[1:].any() for gfn in range(BLOCK))
    assert not words[blocks[0] << 9 : (blocks[0] + BLOCK) << 9].any()


def test_a_page_that_comes_back_holds_what_it_held_whatever_its_frame_held_before() -> None:
    host, words = HostMemory(Clock(), 8, Marks(0, 0, 0)), physical_memory(8)
    slot = memory_of(host, words, 0, ["own", "swapped"], set())
    words[slot.frame_of(0) << 9] = 0
    slot.take(0, 1)
    for gfn, held in ((0, 0), (1, 2)):
        pfn = int(host.take(0, 1, State.GUEST)[0])
        words[pfn << 9 : (pfn + 1) << 9] = -1
        slot.arrived(gfn, pfn, 0)
        assert slot.page(gfn).tolist() == [held] + [0] * 511
