"""Free memory as a kernel has it that has been up for some time: single frames in no order, between others in use.

A kernel that has just booted hands out frames one after the other. Later, what it frees lies between what it keeps: the
allocator's lists hold single frames, in the order in which they came back. Linux keeps what cannot be moved (page
tables, slabs) together in pageblocks of 2 MiB (mm/page_alloc.c, grouping by mobility), so that a new page table gets
any hole in any of these. Which frames are holes, and in what order they are handed out, is drawn from a seed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.frames.buddy import allocate_many, free_many
from vmsim.frames.isolation import set_apart
from vmsim.frames.nodes import node_of
from vmsim.frames.records import PAGEBLOCK, State

__all__ = ["break_up", "punch", "scatter_tables"]

Frames = NDArray[np.int64]


def punch(zones: NDArray[Any], frames: NDArray[Any], pairs: Frames, source: np.random.PCG64) -> Frames:
    """Free one frame of every two, either one, in no order; return the others, int64[n].

    Parameters
    ----------
    zones, frames
        Of the allocator.
    pairs : int64[n]
        First frames of blocks of two, taken from it.
    source : PCG64
        Says which of two is freed, and in what order.
    """
    kept = pairs + (source.random_raw(len(pairs)) & np.uint64(1)).astype(np.int64)
    free_many(zones, frames, 0, (kept ^ 1)[np.argsort(source.random_raw(len(kept)), kind="stable")])
    return kept


def break_up(
    zones: NDArray[Any], frames: NDArray[Any], owner: int, share: float, source: np.random.PCG64, limit: int = 0
) -> Frames:
    """Keep frames for a kernel itself, so that a share of what is left free is in single frames; return them, int64[n].

    Parameters
    ----------
    zones, frames
        Of the allocator.
    owner : int
        Of what is kept, in state HOST.
    share : float
        From 0 to 1. The kernel keeps share / (1 + share) of the memory: the least that makes it so.
    source : PCG64
        Says which pageblocks are in single frames, and what `punch` draws.
    limit : int
        Frames from here on are left whole; 0: none is.
    """
    free = int(zones["free"][0])
    pairs = np.empty(free // 2, np.int64)
    pairs = pairs[: allocate_many(zones, frames, 1, int(State.HOST), owner, pairs)]
    blocks, block = np.unique(pairs >> PAGEBLOCK, return_inverse=True)
    pairs = pairs[np.lexsort((pairs, source.random_raw(len(blocks))[block]))]
    if limit:
        pairs = np.concatenate((pairs[pairs < limit], pairs[pairs >= limit]))
        free = 2 * int((pairs < limit).sum())
    single = int(share / (1 + share) * free)  # each costs another frame: share = single / (free - single)
    pairs, whole = pairs[:single], pairs[single:]
    free_many(zones, frames, 1, np.sort(whole)[::-1].copy())  # so that low addresses are handed out first
    return punch(zones, frames, pairs, source)


def scatter_tables(
    zones: NDArray[Any], frames: NDArray[Any], owner: int, span: int, source: np.random.PCG64, limit: int = 0
) -> Frames:
    """Have page tables get single frames, in no order, of pageblocks anywhere; return those between them, int64[n].

    When these frames have been handed out, tables come from whole pageblocks as on a machine that has just booted.

    Parameters
    ----------
    zones, frames
        Of the allocator.
    owner : int
        Of the frames in between, which are in state TABLE: they cannot be moved.
    span : int
        Frames of those pageblocks together; half of them are free afterwards. At most as many as whole pageblocks have
        that are free.
    source : PCG64
        Says which pageblocks, and what `punch` draws.
    limit : int
        None from here on; 0: any.
    """
    each = 1 << PAGEBLOCK
    firsts = np.arange((limit or len(frames)) >> PAGEBLOCK, dtype=np.int64) << PAGEBLOCK
    whole = (frames["state"][: len(firsts) << PAGEBLOCK].reshape(-1, each) == State.FREE).all(axis=1)
    places = np.zeros(len(firsts), np.int64)  # of the zones that list them
    if len(zones) > 1:
        places = 1 + node_of(zones, firsts)
        whole &= places == 1 + node_of(zones, firsts + each - 1)
    order = np.argsort(source.random_raw(len(firsts)), kind="stable")
    chosen = order[whole[order]][: span >> PAGEBLOCK]
    for number in chosen.tolist():
        set_apart(zones, frames, places[number], firsts[number], owner)
    pairs = (firsts[chosen][:, None] + np.arange(0, each, 2)).ravel()
    return punch(zones, frames, pairs, source)
