"""The loops over columns of accesses: accesses into runs, and blocks into ranks of how recently they were used."""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel
from vmsim.workloads.stream import Addresses, Counts, Kinds

__all__ = ["blocks_of_ranks", "coalesce", "rank_blocks"]

_MOST = (1 << 31) - 1  # a run's count is an int32


@kernel
def coalesce(
    address: Addresses,
    count: Counts,
    kind: Kinds,
    mask: np.int64,
    joins: np.int64,
    filled: np.int64,
    out_address: Addresses,
    out_count: Counts,
    out_kind: Kinds,
) -> np.int64:
    """Append accesses to `filled` runs and return how many there are now.

    An access joins the run before it if block and kind are the same, but never a run below number `joins`: an event
    stands between.
    """
    for i in range(len(address)):
        block = address[i] & mask
        last = filled - 1
        if (
            last >= joins
            and out_address[last] == block
            and out_kind[last] == kind[i]
            and np.int64(out_count[last]) + count[i] <= _MOST
        ):
            out_count[last] += count[i]
        else:
            out_address[filled] = block
            out_count[filled] = count[i]
            out_kind[filled] = kind[i]
            filled += 1
    return filled


@kernel
def rank_blocks(blocks: Addresses, recent: Addresses, rank: Kinds, novel: Addresses) -> int:
    """Set rank[i] to the recency rank of blocks[i], or len(recent) where it is not among the recent.

    Such blocks are put in `novel`; their number is returned.
    """
    depth = len(recent)
    known = 0
    found = 0
    for i in range(len(blocks)):
        block = blocks[i]
        newer = block
        at = 0
        while at < known:
            here = recent[at]
            recent[at] = newer
            if here == block:
                break
            newer = here
            at += 1
        if at == known:
            if known < depth:
                recent[known] = newer
                known += 1
            at = depth
            novel[found] = block
            found += 1
        rank[i] = at
    return found


@kernel
def blocks_of_ranks(rank: Kinds, novel: Addresses, shift: np.int64, recent: Addresses, address: Addresses) -> bool:
    """Undo `rank_blocks`; return whether every rank was that of a block already seen.

    `recent` has one place more than blocks are remembered: what falls off the end is written there.
    """
    depth = len(recent) - 1
    known = 0
    taken = 0
    for i in range(len(rank)):
        at = np.int64(rank[i])
        if at == depth:
            block = novel[taken] << shift
            taken += 1
            at = np.int64(known)
            if known < depth:
                known += 1
        elif at < known:
            block = recent[at]
        else:
            return False
        for place in range(at, 0, -1):
            recent[place] = recent[place - 1]
        recent[0] = block
        address[i] = block
    return True
