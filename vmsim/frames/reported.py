"""Free blocks that a kernel tells its host of, and lists again as reported (Linux mm/page_reporting.c).

A block has been reported if the owner of its first frame is REPORTED, though it is free; blocks that are larger than
Linux's allocator has consist of such ones. What is taken from the lists, or merges into a larger block of Linux's, has
not been.
"""

from __future__ import annotations

from vmsim.frames.records import (
    LARGEST_REPORTED,
    MAX_ORDER,
    NO_FRAME,
    REPORTED,
    State,
    give_to,
    push,
    take_from,
    unlink,
)
from vmsim.jit import kernel, leaf, routine

__all__ = ["any_unreported", "count_listed", "isolate", "put_back", "separate", "take_out"]


@leaf
def _last(order):
    """Return the order of the largest blocks that stand for those of `order`: Linux has none beyond its largest."""
    return MAX_ORDER if order == LARGEST_REPORTED else order


@routine
def _find(zone, frames, order, mobility, firsts):
    """Fill `firsts` (int64[:]) with unreported blocks of 2**order frames, in the order of their lists."""
    count = 0
    for listed in range(order, _last(order) + 1):
        block = zone.heads[mobility, listed]
        while block != NO_FRAME and count < len(firsts):
            for first in range(block, block + (1 << listed), 1 << order):
                if frames[first].owner != REPORTED and count < len(firsts):
                    firsts[count] = first
                    count += 1
            block = frames[block].next
    return count


@kernel
def any_unreported(zones, frames, least, firsts):
    """Return whether a block of 2**least frames or more is free and has not been reported; `firsts` is scratch."""
    for order in range(least, LARGEST_REPORTED + 1):
        for mobility in range(2):
            if _find(zones[0], frames, order, mobility, firsts):
                return True
    return False


@kernel
def count_listed(zones, frames, order):
    """Return how many blocks of 2**order frames are free, of either mobility."""
    count = 0
    for listed in range(order, _last(order) + 1):
        for mobility in range(2):
            block = zones[0].heads[mobility, listed]
            while block != NO_FRAME:
                count += 1 << (listed - order)
                block = frames[block].next
    return count


@routine
def separate(zone, frames, first, order):
    """Take a block off the lists that lies in a free one, whose other parts are listed then."""
    found = order
    block = first
    while frames[block].block != found + 1:
        found += 1
        block = first & ~((1 << found) - 1)
    unlink(zone, frames, block, found)
    while found > order:
        found -= 1
        upper = block + (1 << found)
        if first >= upper:
            push(zone, frames, block, found)
            block = upper
        else:
            push(zone, frames, upper, found)


@routine
def take_out(zone, frames, first, order, owner):
    """Take a block out of the free one that it lies in."""
    separate(zone, frames, first, order)
    zone.free -= 1 << order
    for each in range(first, first + (1 << order)):
        frames[each].state = State.HOST
        give_to(zone, frames, each, owner)


@kernel
def isolate(zones, frames, order, mobility, owner, least, firsts):
    """Take unreported free blocks of 2**order frames from the allocator, for the kernel itself (__isolate_free_page).

    Parameters
    ----------
    owner : int
        Of the frames.
    least : int
        Frames that stay free.
    firsts : int64[:]
        Gets their first frames, no more than it has room for.

    Returns
    -------
    int
        How many there were.
    """
    zone = zones[0]
    count = _find(zone, frames, order, mobility, firsts)
    for number in range(count):
        if zone.free - (1 << order) < least:
            return number
        take_out(zone, frames, firsts[number], order, owner)
    return count


@leaf
def _append(zone, frames, pfn, order):
    """List a free block as the last one of its size."""
    mobility = frames[pfn].mobility
    if zone.heads[mobility, order] == NO_FRAME:
        push(zone, frames, pfn, order)
        return
    tail = zone.tails[mobility, order]
    frames[tail].next = pfn
    frames[pfn].prev = tail
    frames[pfn].next = NO_FRAME
    frames[pfn].block = order + 1
    zone.tails[mobility, order] = pfn


@kernel
def put_back(zones, frames, firsts, orders):
    """Give blocks back to the allocator as reported, behind all others of their size (__putback_isolated_page).

    One that merges into a larger block is to be reported again with it (page_reporting_drain).
    """
    zone = zones[0]
    for number in range(len(firsts)):
        first = firsts[number]
        order = orders[number]
        for each in range(first, first + (1 << order)):
            take_from(zone, frames, each)
            frames[each].state = State.FREE
            frames[each].owner = 0
        frames[first].owner = REPORTED
        zone.free += 1 << order
        block = first
        while order < MAX_ORDER:
            buddy = block ^ (1 << order)
            if buddy + (1 << order) > zone.frames or frames[buddy].block != order + 1:
                break
            unlink(zone, frames, buddy, order)
            if order < LARGEST_REPORTED:
                frames[first].owner = 0
            block = min(block, buddy)
            order += 1
        _append(zone, frames, block, order)
