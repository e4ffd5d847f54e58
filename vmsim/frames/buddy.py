"""Frames of a physical address space and the buddy allocator that hands them out (Linux mm/page_alloc.c).

A guest's kernel and the host's use the same code on their own frames. Every frame has one state, one owner and the
one entry that maps it. Free blocks of each order are doubly linked lists, last freed first; a block of order k is
2**k frames, aligned to its size, and merges with its buddy when both are free. The frames of each owner are a list by
the same links, so that what an owner has is found without a look at all frames. A record of zeros is a free frame
inside a block: the operating system gives no memory for the records of frames that were never allocated.

Pages are grouped by mobility: page tables, which cannot be moved, are taken from pageblocks (2 MiB) set apart for
them, so that they lie close together and do not scatter over memory that could become large pages.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel, leaf, routine
from vmsim.machine.memory import zeroed

__all__ = [
    "FRAME_RECORD",
    "LARGEST_REPORTED",
    "MAX_ORDER",
    "MOVABLE",
    "NO_FRAME",
    "OWNERS",
    "PAGEBLOCK",
    "REPORTED",
    "UNMOVABLE",
    "ZONE",
    "State",
    "allocate",
    "allocate_many",
    "count_states",
    "free",
    "free_many",
    "free_owned",
    "give_to",
    "hand_over",
    "make_zone",
    "owned",
    "push",
    "take_from",
    "unlink",
    "use",
]

MAX_ORDER = 18  # 1 GiB; Linux stops at 4 MiB (MAX_PAGE_ORDER 10) and needs boot-time hugetlb for 1 GiB pages
NO_FRAME = -1
PAGEBLOCK = 9  # order of the blocks that have one mobility (pageblock_order on x86)
LARGEST_REPORTED = (
    10  # order of the largest blocks of Linux's allocator (MAX_PAGE_ORDER), by which free ones are reported
)
REPORTED = 1  # the owner of the first frame of such a block, or a smaller one, that is free and was reported
OWNERS = 4096  # the kernel, -1, and VMs from 0 on

MOVABLE = 0
UNMOVABLE = 1


class State(IntEnum):
    """What a frame is used for."""

    FREE = 0
    HOST = 1  # the kernel's own: taken from the allocator, not yet given a use
    POOL = 2  # in a monitor's page pool
    GUEST = 3  # a VM's memory (in a guest: a process's page)
    TABLE = 4  # a page table


FRAME_RECORD = np.dtype(
    (
        np.record,
        [
            ("next", "i4"),  # links of a list: of free blocks by their first frames, or of an owner's frames
            ("prev", "i4"),
            ("block", "i1"),  # 1 + the order of the free block that starts here; 0: none does
            ("state", "i1"),
            ("mobility", "i1"),  # of the pageblock; free blocks are listed by that of their first frame
            ("owner", "i2"),  # number of the VM; -1: the kernel; of a free frame 0, or REPORTED
            # Of a page of a VM's memory 1 + its guest frame; of others the address of the entry that maps the frame
            # (hpa; in a guest gpa). 0: none.
            ("rmap", "i8"),
        ],
    )
)

ZONE = np.dtype(
    (
        np.record,
        [
            ("heads", "i8", (2, MAX_ORDER + 1)),  # of the free lists, by mobility and order
            ("tails", "i8", (2, MAX_ORDER + 1)),  # their last blocks; without meaning where a list is empty
            ("free", "i8"),
            ("frames", "i8"),
            ("owned", "i4", (OWNERS,)),  # 1 + the first frame of each owner's list, by 1 + the owner; 0: it is empty
        ],
    )
)


def make_zone(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a zone, shape (1,), and its `size` frames, shape (size,), all free."""
    zone = np.zeros(1, ZONE)
    frames = zeroed(size * FRAME_RECORD.itemsize).view(FRAME_RECORD)
    _initialise(zone, frames)
    return zone, frames


@leaf
def push(zone, frames, pfn, order):
    """List a free block as the first of its size."""
    mobility = frames[pfn].mobility
    head = zone.heads[mobility, order]
    frames[pfn].next = head
    frames[pfn].prev = NO_FRAME
    frames[pfn].block = order + 1
    if head != NO_FRAME:
        frames[head].prev = pfn
    else:
        zone.tails[mobility, order] = pfn
    zone.heads[mobility, order] = pfn


@leaf
def unlink(zone, frames, pfn, order):
    """Take a free block off its list."""
    after = frames[pfn].next
    before = frames[pfn].prev
    if before == NO_FRAME:
        zone.heads[frames[pfn].mobility, order] = after
    else:
        frames[before].next = after
    if after != NO_FRAME:
        frames[after].prev = before
    else:
        zone.tails[frames[pfn].mobility, order] = before
    frames[pfn].block = 0
    if order < LARGEST_REPORTED:
        frames[pfn].owner = 0  # what was said of the block holds no more


@leaf
def give_to(zone, frames, pfn, owner):
    """Put a frame into the list of its new owner."""
    head = zone.owned[owner + 1] - 1
    frames[pfn].next = head
    frames[pfn].prev = NO_FRAME
    if head != NO_FRAME:
        frames[head].prev = pfn
    zone.owned[owner + 1] = pfn + 1
    frames[pfn].owner = owner


@leaf
def take_from(zone, frames, pfn):
    """Take a frame out of the list of its owner."""
    after = frames[pfn].next
    before = frames[pfn].prev
    if before == NO_FRAME:
        zone.owned[frames[pfn].owner + 1] = after + 1
    else:
        frames[before].next = after
    if after != NO_FRAME:
        frames[after].prev = before


@kernel
def _initialise(zones, frames):
    zone = zones[0]
    zone.frames = len(frames)
    zone.free = len(frames)
    for order in range(MAX_ORDER + 1):
        zone.heads[MOVABLE, order] = NO_FRAME
        zone.heads[UNMOVABLE, order] = NO_FRAME
    # Highest blocks first, so that the lists hand out low addresses first.
    end = len(frames)
    while end:
        order = 0
        while order < MAX_ORDER and end & ((2 << order) - 1) == 0:
            order += 1
        end -= 1 << order
        push(zone, frames, end, order)


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
def _list_free(zone, frames, pfn, order):
    """List a block as free, with the free buddies that it merges with."""
    zone.free += 1 << order
    while order < MAX_ORDER:
        buddy = pfn ^ (1 << order)
        if buddy + (1 << order) > zone.frames or frames[buddy].block != order + 1:
            break
        unlink(zone, frames, buddy, order)
        pfn = min(pfn, buddy)
        order += 1
    push(zone, frames, pfn, order)


@leaf
def _free(zone, frames, pfn, order):
    for each in range(pfn, pfn + (1 << order)):
        take_from(zone, frames, each)
        frames[each].state = State.FREE
        frames[each].owner = 0
        frames[each].rmap = 0
    _list_free(zone, frames, pfn, order)


@routine
def _allocate(zone, frames, order, state, owner):
    mobility = UNMOVABLE if state == State.TABLE else MOVABLE
    pfn = _find(zone, frames, order, mobility)
    if pfn == 0 and state == State.TABLE and order < PAGEBLOCK:
        # No table lies in frame 0, which Linux keeps to itself: where tables are named, 0 says that there is none.
        other = _find(zone, frames, order, mobility)
        if other != NO_FRAME:
            zone.free -= 1 << order
            frames[pfn].owner = 0
            _list_free(zone, frames, pfn, order)
            pfn = other
    if pfn == NO_FRAME:
        return NO_FRAME
    zone.free -= 1 << order
    for each in range(pfn, pfn + (1 << order)):
        frames[each].state = state
        give_to(zone, frames, each, owner)
    return pfn


@kernel
def allocate(zones, frames, order, state, owner):
    """Return the first pfn of a free block of 2**order frames, now `owner`'s, or NO_FRAME."""
    return _allocate(zones[0], frames, order, state, owner)


@kernel
def allocate_many(zones, frames, order, state, owner, pfns):
    """Fill `pfns` (int64[:]) with blocks of 2**order frames while there are any; return how many were got."""
    for number in range(len(pfns)):
        pfn = _allocate(zones[0], frames, order, state, owner)
        if pfn == NO_FRAME:
            return number
        pfns[number] = pfn
    return len(pfns)


@kernel
def free(zones, frames, pfn, order):
    """Give a block back; it merges with its free buddies."""
    _free(zones[0], frames, pfn, order)


@kernel
def free_many(zones, frames, order, pfns):
    """Give back the blocks `pfns` (int64[:]) of 2**order frames each."""
    for number in range(len(pfns)):
        _free(zones[0], frames, pfns[number], order)


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
