"""The two lists of a memory's pages, compiled: what is at their ends is looked at in batches (Linux mm/vmscan.c).

A list is a ring of links through the pages' numbers, with a place of its own behind them all. Whether a page was
accessed is asked for many at once, before they are looked at; who asked and stopped early finds the answer later.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.tables.backing import OWNED

__all__ = [
    "ACTIVE",
    "BATCH",
    "INACTIVE",
    "LONG_AGO",
    "Count",
    "TwoLists",
    "all_low",
    "arrive",
    "arrive_each",
    "come_back",
    "drop_each",
    "is_low",
    "make_lists",
    "put",
    "set_young",
    "shrink",
    "shrink_active",
    "tails",
    "use",
]

BATCH = 32  # pages that are looked at before anything else is (SWAP_CLUSTER_MAX)
INACTIVE = 0
ACTIVE = 1
LONG_AGO = -1 << 61
_LISTED = 1  # flags of a page
_ACTIVE = 2
_REFERENCED = 4
_YOUNG = 8  # it was accessed, and that has not been used yet
_GIB = 18  # pages in a GiB, as a power of two
_LEVEL = 4  # where a backing word has the level at which the host maps the page


class Count(IntEnum):
    """Places in `TwoLists.counts`; the first two are how long the lists are."""

    SCANNED = 2
    ACTIVATED = 3
    KEPT = 4
    DEACTIVATED = 5
    SIZE = 6


class TwoLists(NamedTuple):
    """The lists of one memory."""

    after: np.ndarray  # int32[numbers + 2], towards the tail
    before: np.ndarray  # int32[numbers + 2], towards the head
    flags: np.ndarray  # uint8[numbers]
    counts: np.ndarray  # int64[Count.SIZE]


def make_lists(numbers: int, counts: np.ndarray) -> TwoLists:
    """Return the empty lists of a memory whose pages have so many numbers, with `counts`, int64[Count.SIZE], of 0."""
    ring = np.zeros(numbers + 2, np.int32)
    ring[numbers:] = numbers, numbers + 1
    return TwoLists(ring, ring.copy(), np.zeros(numbers, np.uint8), counts)


@leaf
def _unlink(lists, number):  # type: ignore[no-untyped-def]
    """Take a page from its list."""
    after, before = lists.after[number], lists.before[number]
    lists.after[before] = after
    lists.before[after] = before
    lists.counts[1 if lists.flags[number] & _ACTIVE else 0] -= 1


@leaf
def _link(lists, number, which):  # type: ignore[no-untyped-def]
    """Put a page at the head of a list."""
    ring = len(lists.flags) + which
    first = lists.after[ring]
    lists.after[number] = first
    lists.before[number] = ring
    lists.before[first] = number
    lists.after[ring] = number
    lists.counts[which] += 1
    lists.flags[number] = lists.flags[number] & ~_ACTIVE | _LISTED | (_ACTIVE if which else 0)


@kernel
def put(lists, number, which):  # type: ignore[no-untyped-def]
    """Put a page at the head of a list, wherever it is."""
    if lists.flags[number] & _LISTED:
        _unlink(lists, number)
    _link(lists, number, which)


@leaf
def _sum_of(every, which):  # type: ignore[no-untyped-def]
    """Return how many pages are on the lists of a kind, of all memories."""
    total = np.int64(0)
    for each in range(len(every)):
        total += every[each, which]
    return total


@kernel
def come_back(lists, every, more, numbers, ages, slots, now):  # type: ignore[no-untyped-def]
    """Put pages that came back on the list where each belongs (workingset_refault), one after the other.

    Parameters
    ----------
    lists : TwoLists
        Of their memory.
    every : int64[memories, Count.SIZE]
        The counts of all lists.
    more : int
        By how much a distance may pass the pages that are active there.
    numbers : int64[n]
        The pages.
    ages : int64[:]
        By slot, how many pages had been taken, or become active by a refault, when the page in it was.
    slots : int64[n]
        Those of the pages; one that `ages` does not have was taken long ago.
    now : int
        How many have by now.

    Returns
    -------
    int
        How many became active.
    """
    activated = np.int64(0)
    for at in range(len(numbers)):
        which = INACTIVE
        age = ages[slots[at]] if slots[at] < len(ages) else LONG_AGO
        if now + activated - age <= _sum_of(every, ACTIVE) + more:
            which = ACTIVE
            activated += 1
        if lists.flags[numbers[at]] & _LISTED:
            _unlink(lists, numbers[at])
        _link(lists, numbers[at], which)
    return activated


@kernel
def all_low(every):  # type: ignore[no-untyped-def]
    """Return whether the inactive lists are too short beside the active ones, those of all memories together."""
    return _is_low(_sum_of(every, INACTIVE), _sum_of(every, ACTIVE))


@kernel
def arrive(lists, backing):  # type: ignore[no-untyped-def]
    """Put all pages of a VM that are on no list at the head of the inactive one, in the order of their numbers.

    Of a large page that is its first frame alone.
    """
    for number in range(len(backing)):
        word = backing[number]
        if word & OWNED and lists.flags[number] & _LISTED == 0:
            level = (word >> _LEVEL) & 7
            if level < 2 or number & ((1 << (9 * (level - 1))) - 1) == 0:
                _link(lists, number, INACTIVE)


@kernel
def arrive_each(lists, numbers):  # type: ignore[no-untyped-def]
    """Put pages, int64[n], at the head of the inactive list, one after the other, unless they are on a list."""
    for at in range(len(numbers)):
        if lists.flags[numbers[at]] & _LISTED == 0:
            _link(lists, numbers[at], INACTIVE)


@kernel
def drop_each(lists, numbers):  # type: ignore[no-untyped-def]
    """Take pages, int64[n], from their lists, and forget them."""
    for at in range(len(numbers)):
        if lists.flags[numbers[at]] & _LISTED:
            _unlink(lists, numbers[at])
        lists.flags[numbers[at]] = 0


@kernel
def tails(lists, inactive, active, numbers):  # type: ignore[no-untyped-def]
    """List the pages at the tails, the last first: so many of the inactive list and of the active one.

    Fills `numbers`, int64[n], where there are as many; returns how many.
    """
    count = np.int64(0)
    for which in range(2):
        ring = len(lists.flags) + which
        number = lists.before[ring]
        left = active if which else inactive
        while left and number != ring:
            numbers[count] = number
            count += 1
            left -= 1
            number = lists.before[number]
    return count


@kernel
def set_young(lists, numbers, young):  # type: ignore[no-untyped-def]
    """Note which of some pages, int64[n], were accessed, bool[n]."""
    for at in range(len(numbers)):
        if young[at]:
            lists.flags[numbers[at]] |= _YOUNG


@kernel
def use(lists, number):  # type: ignore[no-untyped-def]
    """Note that a page was used by a system call (mm/swap.c, folio_mark_accessed); return whether it became active."""
    flags = lists.flags[number]
    if flags & _LISTED == 0:
        return False
    if flags & _REFERENCED == 0:
        lists.flags[number] = flags | _REFERENCED
        return False
    if flags & _ACTIVE:
        return False
    _unlink(lists, number)
    _link(lists, number, ACTIVE)
    lists.flags[number] &= ~np.uint8(_REFERENCED)
    lists.counts[Count.ACTIVATED] += 1
    return True


@leaf
def _is_low(inactive, active):  # type: ignore[no-untyped-def]
    """Return whether the inactive list is too short beside the active one (inactive_is_low)."""
    gib = (inactive + active) >> _GIB
    ratio = np.int64(1)
    if gib:
        ratio = np.int64(np.sqrt(np.float64(10 * gib)))
    return inactive * ratio < active


@routine
def _deactivate(lists, count):  # type: ignore[no-untyped-def]
    """Move pages from the tail of the active list to the head of the inactive one (shrink_active_list)."""
    ring = len(lists.flags) + ACTIVE
    while count and lists.before[ring] != ring:
        number = lists.before[ring]
        _unlink(lists, number)
        lists.flags[number] &= ~np.uint8(_YOUNG)
        _link(lists, number, INACTIVE)
        lists.counts[Count.SCANNED] += 1
        lists.counts[Count.DEACTIVATED] += 1
        count -= 1


@routine
def _look(lists, count, victims, found):  # type: ignore[no-untyped-def]
    """Look at pages at the tail of the inactive list (shrink_inactive_list); return how many are to be taken by now."""
    ring = len(lists.flags) + INACTIVE
    while count and lists.before[ring] != ring:
        number = lists.before[ring]
        flags = lists.flags[number]
        lists.counts[Count.SCANNED] += 1
        count -= 1
        _unlink(lists, number)
        lists.flags[number] = flags & ~np.uint8(_YOUNG | _REFERENCED)
        if flags & _YOUNG:
            lists.flags[number] |= _REFERENCED
            if flags & _REFERENCED:
                lists.counts[Count.ACTIVATED] += 1
                _link(lists, number, ACTIVE)
            else:
                lists.counts[Count.KEPT] += 1
                _link(lists, number, INACTIVE)
        else:
            lists.flags[number] = 0
            victims[found] = number
            found += 1
    return found


@kernel
def shrink(lists, inactive, active, goal, deactivates, victims):  # type: ignore[no-untyped-def]
    """Look at so many pages of each list, in turns, until enough are found that are to be taken (shrink_lruvec).

    Parameters
    ----------
    lists : TwoLists
        Of a memory; the pages that are to be taken leave them.
    inactive, active : int
        Pages of each list.
    goal : int
        Pages after which it stops, at the end of a batch.
    deactivates : bool
        Whether the active list may be looked at.
    victims : int64[n]
        Filled: the pages to be taken; n is `inactive` and a batch at least.

    Returns
    -------
    int
        How many were filled.
    """
    found = np.int64(0)
    while inactive > 0:
        some = min(inactive, BATCH)
        inactive -= some
        found = _look(lists, some, victims, found)
        if active > 0:
            some = min(active, BATCH)
            active -= some
            if deactivates:
                _deactivate(lists, some)
        if found >= goal:
            break
    if _is_low(lists.counts[INACTIVE], lists.counts[ACTIVE]):
        _deactivate(lists, BATCH)
    return found


@kernel
def shrink_active(lists):  # type: ignore[no-untyped-def]
    """Move a batch from the active list to the inactive one (kswapd_age_node)."""
    _deactivate(lists, BATCH)


@kernel
def is_low(inactive, active):  # type: ignore[no-untyped-def]
    """Return whether so many inactive pages are too few beside so many active ones."""
    return _is_low(inactive, active)
