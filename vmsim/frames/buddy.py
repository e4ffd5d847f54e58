"""Frames of a physical address space and the buddy allocator that hands them out (Linux mm/page_alloc.c).

A guest's kernel and the host's use the same code on their own frames. Every frame has one state, one owner and the
one entry that maps it. Free blocks of each order are doubly linked lists, last freed first; a block of order k is
2**k frames, aligned to its size, and merges with its buddy when both are free. The frames of each owner are a list by
the same links, so that what an owner has is found without a look at all frames. A record of zeros is a free frame
inside a block: the operating system gives no memory for the records of frames that were never allocated.

Pages are grouped by mobility: page tables, which cannot be moved, are taken from pageblocks (2 MiB) set apart for
them, so that they lie close together and do not scatter over memory that could become large pages.

Memory of several NUMA nodes has a zone for each: its blocks are listed, split and merged within it. The first record
of `zones` is then that of all together: it counts what is free, and has the owners' lists. From which node an owner's
frames are to be says its policy (vmsim.frames.nodes), as that of a task in Linux (mm/mempolicy.c).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.frames.records import (
    FRAME_RECORD,
    INTERLEAVED,
    MAX_ORDER,
    MOVABLE,
    NO_FRAME,
    PAGEBLOCK,
    UNMOVABLE,
    ZONE,
    State,
    give_to,
    push,
    take_from,
    unlink,
)
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.memory import zeroed

__all__ = [
    "allocate",
    "allocate_for",
    "allocate_many",
    "allocate_on",
    "count_states",
    "free",
    "free_many",
    "free_owned",
    "hand_over",
    "make_free",
    "make_zone",
    "owned",
    "use",
]


def make_zone(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a zone, shape (1,), and its `size` frames, shape (size,), all free."""
    zone = np.zeros(1, ZONE)
    frames = zeroed(size * FRAME_RECORD.itemsize).view(FRAME_RECORD)
    make_free(zone, frames, np.array([size]))
    return zone, frames


@kernel
def make_free(zones, frames, ends):
    """Make all frames free; `ends` (int64[nodes]) are the first frames after each node."""
    for at in range(len(zones)):
        for order in range(MAX_ORDER + 1):
            zones[at].heads[MOVABLE, order] = NO_FRAME
            zones[at].heads[UNMOVABLE, order] = NO_FRAME
    first = 0
    for node in range(len(ends)):
        zone = zones[len(zones) - len(ends) + node]
        zone.first = first
        zone.frames = ends[node]
        zone.free = ends[node] - first
        # Highest blocks first, so that the lists hand out low addresses first.
        end = ends[node]
        while end > first:
            order = 0
            while order < MAX_ORDER and end & ((2 << order) - 1) == 0 and end - (2 << order) >= first:
                order += 1
            end -= 1 << order
            push(zone, frames, end, order)
        first = ends[node]
    zones[0].frames = first
    zones[0].free = first


@leaf
def _place(zones, pfn):
    """Return which of the zones lists the blocks of a frame."""
    at = 0
    if len(zones) > 1:
        at = 1
        while pfn >= zones[at].frames:
            at += 1
    return at


@leaf
def _count_free(zones, at, count):
    """Count frames of a zone that are free from now on, or with a negative number no more."""
    zones[at].free += count
    if at:
        zones[0].free += count


@leaf
def _split(zone, frames, pfn, found, order):
    """List the upper halves of a block until its lower part has the order wanted."""
    while found > order:
        found -= 1
        push(zone, frames, pfn + (1 << found), found)


@leaf
def _steal(zone, frames, order, mobility):
    """Take a block from the other mobility's largest; a whole pageblock changes sides (Linux __rmqueue_claim)."""
    other = MOVABLE + UNMOVABLE - mobility
    found = MAX_ORDER
    while found >= order and zone.heads[other, found] == NO_FRAME:
        found -= 1
    if found < order:
        return NO_FRAME
    pfn = zone.heads[other, found]
    unlink(zone, frames, pfn, found)
    keep = max(order, min(found, PAGEBLOCK))
    _split(zone, frames, pfn, found, keep)
    if keep >= PAGEBLOCK:
        for each in range(pfn, pfn + (1 << keep)):
            frames[each].mobility = mobility
    _split(zone, frames, pfn, keep, order)
    return pfn


@routine
def _find(zone, frames, order, mobility):
    """Take a free block off the lists, from the other mobility's if there is none; or return NO_FRAME."""
    found = order
    while found <= MAX_ORDER and zone.heads[mobility, found] == NO_FRAME:
        found += 1
    if found > MAX_ORDER:
        return _steal(zone, frames, order, mobility)
    pfn = zone.heads[mobility, found]
    unlink(zone, frames, pfn, found)
    _split(zone, frames, pfn, found, order)
    return pfn


@routine
def _list_free(zones, frames, pfn, order):
    """List a block as free, with the free buddies of its zone that it merges with."""
    at = _place(zones, pfn)
    zone = zones[at]
    _count_free(zones, at, 1 << order)
    while order < MAX_ORDER:
        buddy = pfn ^ (1 << order)
        if buddy < zone.first or buddy + (1 << order) > zone.frames or frames[buddy].block != order + 1:
            break
        unlink(zone, frames, buddy, order)
        pfn = min(pfn, buddy)
        order += 1
    push(zone, frames, pfn, order)


@leaf
def _free(zones, frames, pfn, order):
    for each in range(pfn, pfn + (1 << order)):
        take_from(zones[0], frames, each)
        frames[each].state = State.FREE
        frames[each].owner = 0
        frames[each].rmap = 0
    _list_free(zones, frames, pfn, order)


@routine
def _find_in(zones, at, frames, order, state):
    """Take a free block off the lists of a zone, for a use; or return NO_FRAME."""
    zone = zones[at]
    mobility = UNMOVABLE if state == State.TABLE else MOVABLE
    pfn = _find(zone, frames, order, mobility)
    if pfn == 0 and state == State.TABLE and order < PAGEBLOCK:
        # No table lies in frame 0, which Linux keeps to itself: where tables are named, 0 says that there is none.
        other = _find(zone, frames, order, mobility)
        if other != NO_FRAME:
            _count_free(zones, at, -(1 << order))
            frames[pfn].owner = 0
            _list_free(zones, frames, pfn, order)
            pfn = other
    if pfn != NO_FRAME:
        _count_free(zones, at, -(1 << order))
    return pfn


@leaf
def _least(zone, mark):
    """Return how many frames of a node are left free by who asks in a round: first low, then min, then none."""
    return zone.low if mark == 0 else zone.min_mark if mark == 1 else np.int64(0)


@routine
def _find_by_policy(zones, frames, order, state, whose):
    """Take a free block off the lists of the node that an owner's policy asks first, or of the nearest that has one.

    All are asked for one above their low watermark, then above min (mm/page_alloc.c, get_page_from_freelist,
    __alloc_pages_slowpath), and then for any: whether the host as a whole has enough, who asks has found out.
    """
    host = zones[0]
    node = np.int64(host.policy[UNMOVABLE if state == State.TABLE else MOVABLE, whose + 1])
    if node == INTERLEAVED:
        node = host.turn
        among = np.int64(host.among[whose + 1])
        while among and not among >> node & 1:
            node = (node + 1) % host.turns
        host.turn = (node + 1) % host.turns
    pfn = np.int64(NO_FRAME)
    for mark in range(3):
        for rank in range(len(zones) - 1):
            at = 1 + np.int64(host.asked[node, rank])
            if zones[at].free - (1 << order) >= _least(zones[at], mark):
                pfn = _find_in(zones, at, frames, order, state)
                if pfn != NO_FRAME:
                    return pfn
    return pfn


@routine
def _allocate(zones, frames, order, state, owner, whose):
    if len(zones) == 1:
        pfn = _find_in(zones, np.int64(0), frames, order, state)
    else:
        pfn = _find_by_policy(zones, frames, order, state, whose)
    if pfn == NO_FRAME:
        return NO_FRAME
    for each in range(pfn, pfn + (1 << order)):
        frames[each].state = state
        give_to(zones[0], frames, each, owner)
    return pfn


@kernel
def allocate(zones, frames, order, state, owner):
    """Return the first pfn of a free block of 2**order frames, now `owner`'s, or NO_FRAME."""
    return _allocate(zones, frames, order, state, owner, owner)


@kernel
def allocate_many(zones, frames, order, state, owner, pfns):
    """Fill `pfns` (int64[:]) with blocks of 2**order frames while there are any; return how many were got."""
    for number in range(len(pfns)):
        pfn = _allocate(zones, frames, order, state, owner, owner)
        if pfn == NO_FRAME:
            return number
        pfns[number] = pfn
    return len(pfns)


@kernel
def allocate_for(zones, frames, state, owner, whose, pfns):
    """Do the same with single frames, from the nodes that the policy of another owner (`whose`) asks."""
    for number in range(len(pfns)):
        pfn = _allocate(zones, frames, np.int64(0), state, owner, whose)
        if pfn == NO_FRAME:
            return number
        pfns[number] = pfn
    return len(pfns)


@kernel
def allocate_on(zones, frames, node, order, state, owner, least, pfns):
    """Fill `pfns` (int64[:]) with blocks of 2**order frames of one node (__GFP_THISNODE); return how many were got.

    `least` frames of it are left free.
    """
    for number in range(len(pfns)):
        pfn = np.int64(NO_FRAME)
        if zones[1 + node].free - (1 << order) >= least:
            pfn = _find_in(zones, np.int64(1 + node), frames, order, state)
        if pfn == NO_FRAME:
            return number
        for each in range(pfn, pfn + (1 << order)):
            frames[each].state = state
            give_to(zones[0], frames, each, owner)
        pfns[number] = pfn
    return len(pfns)


@kernel
def free(zones, frames, pfn, order):
    """Give a block back; it merges with its free buddies."""
    _free(zones, frames, pfn, order)


@kernel
def free_many(zones, frames, order, pfns):
    """Give back the blocks `pfns` (int64[:]) of 2**order frames each."""
    for number in range(len(pfns)):
        _free(zones, frames, pfns[number], order)


@kernel
def use(frames, pfns, state):
    """Note a new use of the frames `pfns` (int64[:]), whose owner stays."""
    for number in range(len(pfns)):
        frames[pfns[number]].state = state


@kernel
def hand_over(zones, frames, pfns, owner, state):
    """Give the frames `pfns` (int64[:]), none of them free, to another owner for another use."""
    for number in range(len(pfns)):
        take_from(zones[0], frames, pfns[number])
        give_to(zones[0], frames, pfns[number], owner)
        frames[pfns[number]].state = state


@kernel
def _list_owned(zones, frames, owner, pfns):
    """Fill `pfns` (int64[:]) with frames of an owner, as many as it has room for."""
    pfn = zones[0].owned[owner + 1] - 1
    for number in range(len(pfns)):
        pfns[number] = pfn
        pfn = frames[pfn].next


@kernel
def _count_states(zones, frames, owner, counts):
    """Count the frames of an owner by their state, in `counts` (int64[states])."""
    pfn = zones[0].owned[owner + 1] - 1
    while pfn != NO_FRAME:
        counts[frames[pfn].state] += 1
        pfn = frames[pfn].next


def owned(zones: NDArray[Any], frames: NDArray[Any], owner: int) -> NDArray[np.int64]:
    """Return the frames of an owner in ascending order, int64[n]."""
    pfns = np.empty(int(count_states(zones, frames, owner).sum()), np.int64)
    _list_owned(zones, frames, owner, pfns)
    pfns.sort()
    return pfns


def count_states(zones: NDArray[Any], frames: NDArray[Any], owner: int) -> NDArray[np.int64]:
    """Return how many frames an owner has in each State, int64[states]."""
    counts = np.zeros(len(State), np.int64)
    _count_states(zones, frames, owner, counts)
    return counts


def free_owned(zones: NDArray[Any], frames: NDArray[Any], owner: int) -> int:
    """Give back every frame of `owner`, in ascending order; return how many there were."""
    pfns = owned(zones, frames, owner)
    free_many(zones, frames, 0, pfns)
    return len(pfns)
