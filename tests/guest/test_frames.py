"""Does a guest's allocator keep its frames, and touch the host only for the ones it hands out?"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from vmsim.contracts import VmStopped
from vmsim.frames.records import State
from vmsim.guest.frames import GuestFrames


class Backing:
    """Notes what is touched; backs it at once."""

    def __init__(self) -> None:
        self.touched: list[tuple[int, int]] = []

    def touch(self, _: Any, gfn: int, order: int) -> Generator[Any, Any, None]:
        self.touched.append((gfn, order))
        return
        yield


def finish(steps: Generator[Any, Any, int]) -> int:
    """Return what a process returns that waits for nothing."""
    try:
        next(steps)
    except StopIteration as end:
        return int(end.value)
    raise AssertionError("it waits")


def guest(size: int) -> tuple[GuestFrames, Backing]:
    backing = Backing()
    return GuestFrames(size, backing, owner=3), backing


def test_only_the_frames_handed_out_are_touched() -> None:
    frames, backing = guest(1024)
    got = [finish(frames.allocate(None, 0)) for _ in range(5)]  # type: ignore[arg-type]
    got.append(finish(frames.allocate_table(None)))  # type: ignore[arg-type]
    assert backing.touched == [(gfn, 0) for gfn in got]
    assert len(set(got)) == 6


def test_tables_and_pages_lie_in_pageblocks_of_their_own() -> None:
    frames, _ = guest(4096)
    tables = {finish(frames.allocate_table(None)) >> 9 for _ in range(100)}  # type: ignore[arg-type]
    pages = {finish(frames.allocate(None, 0)) >> 9 for _ in range(100)}  # type: ignore[arg-type]
    assert len(tables) == len(pages) == 1
    assert not tables & pages


@pytest.mark.parametrize("size", [8, 32, 100, 600])
def test_every_frame_can_be_had_for_a_table_or_a_page(size: int) -> None:
    """Frames kept ready for pages are lent to tables before the guest is out of memory."""
    for first, then in (("page", "table"), ("table", "page")):
        frames, _ = guest(size)
        got = []
        for number in range(size):
            what = first if number == 0 else then
            got.append(finish(frames.allocate_table(None) if what == "table" else frames.allocate(None, 0)))  # type: ignore[arg-type]
        assert sorted(got) == list(range(size))
        with pytest.raises(VmStopped):
            finish(frames.allocate_table(None))  # type: ignore[arg-type]
        with pytest.raises(VmStopped):
            finish(frames.allocate(None, 0))  # type: ignore[arg-type]


def test_large_blocks_are_aligned_and_can_be_given_back() -> None:
    frames, backing = guest(2048)
    assert frames.has_block(9)
    blocks = [finish(frames.allocate(None, 9)) for _ in range(4)]  # type: ignore[arg-type]
    assert sorted(blocks) == [0, 512, 1024, 1536]
    assert backing.touched == [(block, 9) for block in blocks]
    assert not frames.has_block(9)
    with pytest.raises(VmStopped):
        finish(frames.allocate(None, 9))  # type: ignore[arg-type]
    frames.give(np.array(blocks[:1]), 9)
    assert frames.has_block(9)
    assert (frames.frames["state"][blocks[0] : blocks[0] + 512] == State.FREE).all()


def test_a_block_of_one_frame_is_always_said_to_be_there() -> None:
    frames, _ = guest(4)
    assert frames.has_block(0)
    assert not frames.has_block(9)


def test_a_freed_frame_is_the_next_to_be_handed_out_and_the_last_freed_first() -> None:
    frames, _ = guest(1024)
    got = [finish(frames.allocate(None, 0)) for _ in range(5)]  # type: ignore[arg-type]
    frames.give(np.array(got[1:4]), 0)
    again = [finish(frames.allocate(None, 0)) for _ in range(3)]  # type: ignore[arg-type]
    assert again == got[3:0:-1]


def test_frames_freed_in_number_go_back_to_the_allocator_the_oldest_first() -> None:
    frames, _ = guest(2048)
    got = [finish(frames.allocate(None, 0)) for _ in range(1024)]  # type: ignore[arg-type]
    before = len(frames.ready)
    frames.give(np.array(got), 0)
    assert len(frames.ready) < before + 1024
    free = frames.frames["state"][got] == State.FREE
    assert free.any()
    assert free.tolist() == sorted(free.tolist(), reverse=True)
    assert finish(frames.allocate(None, 0)) == got[-1]  # type: ignore[arg-type]


def test_a_freed_table_is_free_at_once() -> None:
    frames, _ = guest(1024)
    table = finish(frames.allocate_table(None))  # type: ignore[arg-type]
    frames.give_tables(np.array([table]))
    assert frames.frames["state"][table] == State.FREE
