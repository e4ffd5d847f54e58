"""A chunk as compressed columns, and back: what stands inside a chunk of a `.vmtrace` file.

Blocks (pages or lines) are written as recency ranks: 0 for the block of the run before, 1 for the one before that, and
so on through the last 255 distinct blocks; 255 says that the block's number follows in a column of its own. Programs
return to few blocks, so ranks are small and repeat, which is what zstandard makes most of.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.workloads.events import problem
from vmsim.workloads.stream import WIDEST_END, Addresses, Chunk, Counts, Event, Op

__all__ = ["COLUMNS", "DEPTH", "EVENT", "Columns", "decode", "encode"]

DEPTH = 255  # blocks remembered, and the rank of one that is not among them
EVENT = np.dtype(
    [("position", "<u4"), ("pid", "<u4"), ("op", "<u4"), ("address", "<i8"), ("length", "<i8"), ("argument", "<i8")]
)
COLUMNS = ("rank", "block", "kind", "count", "long", "event")

Bytes = NDArray[np.uint8]


class Columns(NamedTuple):
    """A chunk's columns before compression.

    Attributes
    ----------
    rank : uint8[runs]
        Recency rank of the run's block; 255: the next entry of `block`.
    block : int64[…]
        Block numbers (address // granule) that no rank gave, each as the difference from the one before.
    kind : uint8[runs]
        0 read, 1 write, 2 fetch.
    count : uint8[runs]
        Accesses; 0: the next entry of `long`.
    long : uint32[…]
        Counts above 255.
    event : EVENT[events]
        Events, sorted by position.
    """

    rank: Bytes
    block: Addresses
    kind: Bytes
    count: Bytes  # type: ignore[assignment]  # in the place of tuple.count
    long: NDArray[np.uint32]
    event: NDArray[np.void]


def encode(chunk: Chunk, shift: int) -> Columns:
    """Return the columns of a chunk whose blocks are 2**shift bytes."""
    from vmsim.workloads.blocks import rank_blocks

    blocks = chunk.address >> shift
    rank = np.empty(len(blocks), np.uint8)
    novel = np.empty(len(blocks), np.int64)
    found = int(rank_blocks(blocks, np.empty(DEPTH, np.int64), rank, novel))
    above = chunk.count > 255
    return Columns(
        rank=rank,
        block=np.diff(novel[:found], prepend=np.int64(0)),
        kind=chunk.kind,
        count=np.where(above, 0, chunk.count).astype(np.uint8),
        long=chunk.count[above].astype(np.uint32),
        event=np.array([(e.position, e.pid, e.op, e.address, e.length, e.argument) for e in chunk.events], EVENT),
    )


def decode(columns: Columns, shift: int) -> Chunk:
    """Return the chunk that the columns say.

    Raises
    ------
    ValueError
        The columns contradict each other or hold what no chunk may; the message says what.
    """
    from vmsim.workloads.blocks import blocks_of_ranks

    rank, kind = columns.rank, columns.kind
    runs = len(rank)
    novel = np.cumsum(columns.block, dtype=np.int64)
    _expect(np.count_nonzero(rank == DEPTH) == len(novel), "as many new blocks as ranks of 255")
    limit = WIDEST_END >> shift
    _expect(not len(novel) or bool((novel >= -limit).all() and (novel < limit).all()), "canonical addresses")
    address = np.empty(runs, np.int64)
    _expect(
        bool(blocks_of_ranks(rank, novel, np.int64(shift), np.empty(DEPTH + 1, np.int64), address)),
        "ranks of blocks already seen",
    )
    _expect(not runs or int(kind.max()) <= 2, "kinds from 0 to 2")
    count: Counts = columns.count.astype(np.int32)
    zero = np.flatnonzero(columns.count == 0)
    _expect(len(zero) == len(columns.long), "as many long counts as counts of 0")
    _expect(bool(((columns.long > 255) & (columns.long < 1 << 31)).all()), "long counts from 256 to 2**31 - 1")
    count[zero] = columns.long
    return Chunk(address, count, kind, _events(columns.event, runs))


def _events(table: NDArray[np.void], runs: int) -> tuple[Event, ...]:
    position = table["position"].astype(np.int64)
    _expect(bool((np.diff(position, prepend=0, append=runs) >= 0).all()), f"events in order, at 0 to {runs}")
    _expect(bool((table["op"] <= max(Op)).all()), f"events' operations from 0 to {max(Op)}")
    events = tuple(
        Event(at, Op(op), pid, address, length, argument) for at, pid, op, address, length, argument in table.tolist()
    )
    if wrong := next(filter(None, map(problem, events)), ""):
        raise ValueError(wrong)
    return events


def _expect(met: bool, what: str) -> None:
    if not met:
        raise ValueError(f"expected {what}")
