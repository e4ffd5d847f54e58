"""Free frames of a range taken out of an allocator, so that nobody gets one (Linux mm/page_isolation.c)."""

from __future__ import annotations

import numpy as np

from vmsim.frames.records import MAX_ORDER, PAGEBLOCK, UNMOVABLE, State, give_to
from vmsim.frames.reported import separate, take_out
from vmsim.jit import kernel, routine

__all__ = ["find_free", "isolate_range", "set_apart"]


@routine
def _lies_free(frames, pfn, order):
    """Return whether a frame lies in a free block of 2**order frames or more."""
    for listed in range(order, MAX_ORDER + 1):  # noqa: SIM110
        if frames[pfn & -(1 << listed)].block == listed + 1:
            return True
    return False


@kernel
def find_free(frames, order, found):
    """Note in `found` (bool[:]) of each aligned block of 2**order frames, from the first on, whether it is free."""
    for number in range(len(found)):
        found[number] = _lies_free(frames, np.int64(number) << order, order)


@kernel
def isolate_range(zones, frames, first, limit, owner, taken):
    """Take the free frames of [first, limit) from the allocator for `owner`; fill `taken` (int64[:]), return how many.

    Blocks that lie in the range only in part are split.
    """
    count = np.int64(0)
    pfn = first
    while pfn < limit:
        if frames[pfn].state != State.FREE:
            pfn += 1
            continue
        order = np.int64(0)
        while (
            order < MAX_ORDER
            and pfn & ((2 << order) - 1) == 0
            and pfn + (2 << order) <= limit
            and _lies_free(frames, pfn, order + 1)
        ):
            order += 1
        take_out(zones[0], frames, pfn, order, owner)
        for each in range(pfn, pfn + (1 << order)):
            taken[count] = each
            count += 1
        pfn += 1 << order
    return count


@kernel
def set_apart(zones, frames, at, first, owner):
    """Take a free pageblock from the allocator for page tables of `owner`; zone number `at` lists it."""
    separate(zones[at], frames, first, PAGEBLOCK)
    zones[at].free -= 1 << PAGEBLOCK
    if at:
        zones[0].free -= 1 << PAGEBLOCK
    for each in range(first, first + (1 << PAGEBLOCK)):
        frames[each].mobility = UNMOVABLE
        frames[each].state = State.TABLE
        give_to(zones[0], frames, each, owner)
