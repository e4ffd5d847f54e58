"""Does one pass over a stream give the misses of every size of memory?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.lru_memory import LruMemory
from vmsim.analysis.miss_ratio import miss_ratios
from vmsim.workloads import lru_stack
from vmsim.workloads.generators import Zipf
from vmsim.workloads.lru_stack import LruStack
from vmsim.workloads.programs import Churn, ForkWait
from vmsim.workloads.reuse import Reuse
from vmsim.workloads.stream import PAGE, Chunk, Event, Op

PAGES = 24
page = st.integers(0, PAGES - 1)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), page, st.integers(1, 3)),
        st.tuples(st.just("forget"), page, st.integers(1, 6)),
        st.tuples(st.just("rename"), page, st.integers(1, 6)),
    ),
    max_size=120,
)


def hits_in(stack: LruStack, frames: int) -> int:
    return int(stack.hits[: frames + 1].sum())


@settings(deadline=None, max_examples=200)
@given(STEPS)
def test_each_size_hits_as_often_as_a_memory_of_that_size(steps: list[tuple[str, int, int]]) -> None:
    stack, memories = LruStack(), [LruMemory(frames) for frames in range(1, 2 * PAGES)]
    for what, first, number in steps:
        if what == "use":
            stack.use(np.array([first]), np.array([number], np.int32))
        elif what == "forget":
            stack.forget(first, number)
        else:
            stack.rename(first, first + PAGES, number)
        for memory in memories:
            memory.rename(first, first + PAGES, number) if what == "rename" else getattr(memory, what)(first, number)
    for memory in memories:
        assert hits_in(stack, memory.frames) == memory.hits
    uses = [step for step in steps if step[0] == "use"]
    assert stack.first == sum(number for _, _, number in uses) - hits_in(stack, 1 << 20)


def test_a_stack_that_outgrows_its_arrays_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lru_stack, "_SMALLEST", 4)
    random = np.random.default_rng(1)
    stack, memories = LruStack(), [LruMemory(frames) for frames in (1, 7, 50, 120, 300)]
    for _ in range(60):
        pages = random.integers(0, 200, 20)
        stack.use(pages, np.ones(20, np.int32))
        first = int(random.integers(0, 200))
        stack.forget(first, 9)
        for memory in memories:
            for each in pages.tolist():
                memory.use(each, 1)
            memory.forget(first, 9)
    for memory in memories:
        assert hits_in(stack, memory.frames) == memory.hits


def test_a_loop_hits_in_a_memory_that_holds_it_and_in_no_smaller_one() -> None:
    stack = LruStack()
    for _ in range(5):
        stack.use(np.arange(100), np.ones(100, np.int32))
    assert (stack.first, hits_in(stack, 99), hits_in(stack, 100)) == (100, 0, 400)


def test_pages_given_back_are_first_touched_again() -> None:
    churn = Churn(
        size=64 * PAGE, base=0x4000_0000, seed=1, writes=1.0, burst=8 * PAGE, kept=0.5, work=3, runs=40, filled=1.0
    )
    reuse = Reuse()
    reuse.add(churn.chunks())
    mapped: set[int] = set()
    firsts = 0
    for chunk in churn.chunks():
        events = iter([*chunk.events, None])
        event = next(events)
        for at, address in enumerate(chunk.address.tolist()):
            while event and event.position <= at:
                if event.op in (Op.MAP, Op.UNMAP):
                    mapped -= set(range(event.address // PAGE, (event.address + event.length) // PAGE))
                event = next(events)
            firsts += address // PAGE not in mapped
            mapped.add(address // PAGE)
        while event:
            if event.op in (Op.MAP, Op.UNMAP):
                mapped -= set(range(event.address // PAGE, (event.address + event.length) // PAGE))
            event = next(events)
    assert reuse.sample.stack.first == firsts > 64


def test_a_child_has_pages_of_its_own_and_leaves_their_frames_to_the_next() -> None:
    forks, child, parent = 3, 4, 2
    size = {"size": 8 * PAGE, "child": child * PAGE, "parent": parent * PAGE}
    reuse = Reuse()
    reuse.add(ForkWait(**size, base=0x4000_0000, seed=1, threads=1, runs=forks).chunks())
    assert reuse.sample.stack.first == 8 + forks * child
    assert hits_in(reuse.sample.stack, 1 << 20) == forks * parent


def test_a_heap_that_shrinks_and_pages_that_move() -> None:
    heap, there = 0x1000_0000, 0x7000_0000
    address = np.array([heap, heap + PAGE, heap + PAGE, there + PAGE, heap], np.int64)
    events = (
        Event(0, Op.BRK, 1, heap + 2 * PAGE, 0, 0),
        Event(2, Op.BRK, 1, heap + PAGE, 0, 0),
        Event(3, Op.MOVE, 1, heap, 2 * PAGE, there),
    )
    reuse = Reuse()
    reuse.add([Chunk(address, np.ones(5, np.int32), np.zeros(5, np.uint8), events)])
    assert reuse.sample.stack.first == 4  # both pages; the one given back; the one that moved away. One came along.


@pytest.mark.parametrize(("rate", "exponent", "mean"), [(0.5, 0.8, 0.02), (0.1, 0.5, 0.02), (0.1, 0.8, 1.0)])
def test_a_sample_gives_the_curve_within_its_error(rate: float, exponent: float, mean: float) -> None:
    """The mean is that of the paper's figure 4; the third stream's most popular page alone is a third of a sample."""
    stream = Zipf(size=20_000 * PAGE, base=0, seed=3, threads=1, writes=0.0, runs=400_000, exponent=exponent)
    exact, sampled = miss_ratios(stream), miss_ratios(stream, rate=rate)
    sizes = sampled.table["pages"].to_numpy()
    truth = np.interp(sizes, exact.table["pages"], exact.table["miss_ratio"])
    far = np.abs(sampled.table["miss_ratio"].to_numpy() - truth)
    assert far.mean() < mean
    known = sampled.table["error"].notna().to_numpy()
    assert known.sum() > 10
    assert (far[known] < 4 * sampled.table["error"][known] + 0.005).all()
    assert not exact.table["error"].any()
