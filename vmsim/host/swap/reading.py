"""What it takes to read a page that a VM waits for, and others with it, as far as nobody waits: compiled.

It is for devices on which nothing turns, where each page takes the same time and none fails. Others go the long way
(`Swap.fetch`), which does the same.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from vmsim.host.swap.cache import FAILED, READING, begin_reads, flags_of, in_cache
from vmsim.host.swap.queue import serve
from vmsim.host.swap.readahead import turn_to, window_of
from vmsim.host.swap.traffic import merge
from vmsim.jit import kernel, leaf
from vmsim.tables.backing import SWAPPED

__all__ = ["HERE", "IN_CACHE", "UNREAD", "UNREADABLE", "begin_read", "look"]

# What `look` finds where there is nothing to read.
HERE: Final = 0  # the page is not away
UNREAD: Final = -1  # it is in the swap cache, and the device reads it
UNREADABLE: Final = -2  # the device could not
IN_CACHE: Final = -3


@leaf
def _find_near(backing, slots, cache, first, limit, wanted, found):  # type: ignore[no-untyped-def]
    """List the slots of those pages [first, limit) that are on the device alone, but for `wanted`; return how many."""
    count = 0
    for gfn in range(max(first, 0), min(limit, len(backing))):
        slot = slots[gfn] - 1
        if backing[gfn] & SWAPPED and slot != wanted and not in_cache(cache, slot):
            found[count] = slot
            count += 1
    return count


@kernel
def look(backing, slots, cache, window, gfn, most, found):  # type: ignore[no-untyped-def]
    """Find out where a page is that is wanted, and how many pages are read if it is on the device alone.

    Parameters
    ----------
    backing, slots : int64[:]
        Where the VM's pages lie, and as of `SwappedPages`.
    cache : int64[:, 5]
        The swap cache.
    window : int64[:]
        What is remembered of the memory (`Window.words`).
    gfn, most : int
        The page, and how many are read at most.
    found : int64[5, most + 1]
        Scratch, in which `begin_read` finds the pages around that are to be read too: another vCPU may look meanwhile.

    Returns
    -------
    int
        Pages to be read; or `HERE`, `UNREAD`, `UNREADABLE` or `IN_CACHE`.
    """
    if backing[gfn] & SWAPPED == 0:
        return HERE
    slot = slots[gfn] - 1
    if slot < 0:  # its VM has ended, and has no slots any more: who asks is a thread of the host's
        return HERE
    if in_cache(cache, slot):
        flags = flags_of(cache, slot)
        return UNREAD if flags & READING else UNREADABLE if flags & FAILED else IN_CACHE
    turn_to(window, gfn, most)
    found[4, 0], found[4, 1] = window_of(window)
    return 1 + _find_near(backing, slots, cache, found[4, 0], found[4, 1], slot, found[0])


@kernel
def begin_read(backing, slots, cache, gfn, slot, pfns, free, sums, now, cycles, found):  # type: ignore[no-untyped-def]
    """Have the device read a page, and those of its window as far as there are frames.

    Parameters
    ----------
    backing, slots, cache, gfn
        As of `look`, which has found the page on the device.
    slot : int
        Where it was then.
    pfns : int64[n]
        Frames, one at least.
    free, sums
        The device's queue, as of `DeviceQueue`.
    now, cycles : int
        When that is, and how long the device takes for a page.
    found : int64[5, most + 1]
        As `look` has left it. Filled, for each page: its slot, its frame, its stamp in the cache, and the cycle in
        which the device is done with it; ascending by the slots. Then scratch.

    Returns
    -------
    (count, same) : (int, bool)
        How many are read, and whether the device is done with all of them in one cycle; -1: the page is no more where
        it was.
    """
    if backing[gfn] & SWAPPED == 0 or slots[gfn] - 1 != slot or in_cache(cache, slot):
        return np.int64(-1), False
    found[0, 0] = slot
    near = _find_near(backing, slots, cache, found[4, 0], found[4, 1], slot, found[0, 1:])
    count = 1 + min(near, len(pfns) - 1)
    for at in range(count):
        found[1, at] = pfns[at]
        found[4, at] = cycles
    begin_reads(cache, found[0, :count], found[1, :count], found[2, :count])
    serve(free, sums, now, found[4, :count], found[3, :count])
    return np.int64(count), merge(found[0, :count], found[3, :count])
