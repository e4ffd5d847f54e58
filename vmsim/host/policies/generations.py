"""The generations of a memory's pages, compiled (Linux mm/vmscan.c, include/linux/mm_inline.h, CONFIG_LRU_GEN).

A generation is a ring of links through the pages' numbers, with a place of its own behind them all. Which generation a
page is of it carries itself: aging changes that and leaves the page in the ring where it is, and eviction, when it
comes to it, puts it where it belongs.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.tables.backing import OWNED

__all__ = [
    "LEAST",
    "MOST",
    "PROTECTED",
    "TIERS",
    "Count",
    "Generations",
    "Place",
    "advance",
    "arrive",
    "arrive_each",
    "begin_generation",
    "drop_each",
    "insert",
    "insert_each",
    "make_generations",
    "promote",
    "sort_out",
    "tier_of",
]

MOST = 4  # generations (MAX_NR_GENS)
LEAST = 2  # that are never evicted (MIN_NR_GENS)
TIERS = 4  # MAX_NR_TIERS
PROTECTED = 4  # references of a page that came back too soon: as many as are counted (BIT(LRU_REFS_WIDTH))
_LEVEL = 4  # where a backing word has the level at which the host maps the page


class Count(IntEnum):
    """Places in `Generations.counts`."""

    SCANNED = 0
    PROMOTED = 1  # found in a ring of a generation that they have left
    PROTECTED = 2
    SIZE = 3


class Place(IntEnum):
    """Places in `Generations.seq`."""

    MIN = 0
    MAX = 1
    SIZE = 2


class Generations(NamedTuple):
    """The generations of one memory."""

    after: np.ndarray  # int32[numbers + MOST], towards the tail
    before: np.ndarray  # int32[numbers + MOST], towards the head
    gen: np.ndarray  # uint8[numbers]: 1 more than the generation's place, 0: of none
    refs: np.ndarray  # uint8[numbers]: references, as far as they are counted
    pages: np.ndarray  # int64[MOST]: of each generation
    protected: np.ndarray  # int64[TIERS]: pages of each tier that were left in memory, of the oldest generation
    seq: np.ndarray  # int64[Place.SIZE]: numbers of the oldest and the youngest
    counts: np.ndarray  # int64[Count.SIZE]


def make_generations(numbers: int) -> Generations:
    """Return the empty generations of a memory whose pages have so many numbers (lru_gen_init_lruvec)."""
    ring = np.zeros(numbers + MOST, np.int32)
    ring[numbers:] = np.arange(numbers, numbers + MOST)
    seq = np.zeros(Place.SIZE, np.int64)
    seq[Place.MAX] = LEAST + 1
    gen, refs = np.zeros(numbers, np.uint8), np.zeros(numbers, np.uint8)
    pages, protected, counts = (np.zeros(size, np.int64) for size in (MOST, TIERS, Count.SIZE))
    return Generations(ring, ring.copy(), gen, refs, pages, protected, seq, counts)


def tier_of(refs: int) -> int:
    """Return the tier of a page with so many references (lru_tier_from_refs)."""
    return int(refs).bit_length()


@leaf
def _tier(refs):  # type: ignore[no-untyped-def]
    tier = np.int64(0)
    while (1 << tier) < refs + 1:
        tier += 1
    return tier


@leaf
def _unlink(lists, number):  # type: ignore[no-untyped-def]
    """Take a page from its ring."""
    after, before = lists.after[number], lists.before[number]
    lists.after[before] = after
    lists.before[after] = before


@leaf
def _link(lists, number, place, tail):  # type: ignore[no-untyped-def]
    """Put a page at the head, or the tail, of a generation's ring."""
    ring = len(lists.gen) + place
    if tail:
        last = lists.before[ring]
        lists.before[number] = last
        lists.after[number] = ring
        lists.after[last] = number
        lists.before[ring] = number
    else:
        first = lists.after[ring]
        lists.after[number] = first
        lists.before[number] = ring
        lists.before[first] = number
        lists.after[ring] = number


@leaf
def _drop(lists, number):  # type: ignore[no-untyped-def]
    """Take a page from its generation, if it has one."""
    gen = np.int64(lists.gen[number])
    if gen:
        _unlink(lists, number)
        lists.pages[gen - 1] -= 1
        lists.gen[number] = 0


@leaf
def _change(lists, number, place):  # type: ignore[no-untyped-def]
    """Make a page one of another generation, and count its references anew; its ring stays."""
    old = np.int64(lists.gen[number])
    lists.pages[old - 1] -= 1
    lists.pages[place] += 1
    lists.gen[number] = place + 1
    lists.refs[number] = 0


@leaf
def _insert(lists, number, place):  # type: ignore[no-untyped-def]
    _drop(lists, number)
    lists.gen[number] = place + 1
    lists.pages[place] += 1
    _link(lists, number, place, False)


@kernel
def insert(lists, number, place, refs):  # type: ignore[no-untyped-def]
    """Put a page at the head of a generation's ring, wherever it is, with so many references."""
    _insert(lists, number, place)
    lists.refs[number] = refs


@kernel
def insert_each(lists, numbers, place, refs):  # type: ignore[no-untyped-def]
    """Do the same to some pages, int64[n], one after the other, each with references of its own, int64[n]."""
    for at in range(len(numbers)):
        _insert(lists, numbers[at], place)
        lists.refs[numbers[at]] = refs[at]


@kernel
def arrive(lists, backing):  # type: ignore[no-untyped-def]
    """Put all pages of a VM that are of no generation into the youngest, in the order of their numbers.

    A fault makes a page active (mm/swap.c, folio_add_lru). Of a large page that is its first frame alone.
    """
    place = lists.seq[Place.MAX] % MOST
    for number in range(len(backing)):
        word = backing[number]
        if word & OWNED and lists.gen[number] == 0:
            level = (word >> _LEVEL) & 7
            if level < 2 or number & ((1 << (9 * (level - 1))) - 1) == 0:
                _insert(lists, number, place)
                lists.refs[number] = 0


@kernel
def arrive_each(lists, numbers):  # type: ignore[no-untyped-def]
    """Put pages, int64[n], into the youngest generation, one after the other, unless they have one."""
    place = lists.seq[Place.MAX] % MOST
    for at in range(len(numbers)):
        if lists.gen[numbers[at]] == 0:
            _insert(lists, numbers[at], place)
            lists.refs[numbers[at]] = 0


@kernel
def drop_each(lists, numbers):  # type: ignore[no-untyped-def]
    """Take pages, int64[n], from their generations."""
    for at in range(len(numbers)):
        _drop(lists, numbers[at])


@kernel
def promote(lists, numbers, young, tables, seen):  # type: ignore[no-untyped-def]
    """Make those of some pages, int64[n], that were accessed, bool[n], pages of the youngest generation.

    Parameters
    ----------
    tables : int64[n]
        Number of the table that maps each.
    seen : int64[m, 2]
        Added to, by table: entries looked at, and found accessed.

    Returns
    -------
    int
        How many were accessed.
    """
    place = lists.seq[Place.MAX] % MOST
    found = np.int64(0)
    for at in range(len(numbers)):
        number = numbers[at]
        seen[tables[at], 0] += 1
        if young[at]:
            seen[tables[at], 1] += 1
            found += 1
            if lists.gen[number]:
                _change(lists, number, place)
    return found


@routine
def _take_along(lists, number, oldest, tail):  # type: ignore[no-untyped-def]
    """Move a page that is of the oldest generation still to the next (folio_inc_gen), and put it in its ring."""
    if lists.gen[number] - 1 == oldest:
        _change(lists, number, (oldest + 1) % MOST)
    _unlink(lists, number)
    _link(lists, number, np.int64(lists.gen[number]) - 1, tail)


@kernel
def begin_generation(lists):  # type: ignore[no-untyped-def]
    """Begin another generation (inc_max_seq); return whether the oldest had to be given up for it (inc_min_seq)."""
    gave = False
    if lists.seq[Place.MAX] - lists.seq[Place.MIN] + 1 == MOST:
        oldest = lists.seq[Place.MIN] % MOST
        ring = len(lists.gen) + oldest
        while lists.before[ring] != ring:
            _take_along(lists, np.int64(lists.before[ring]), oldest, True)
        lists.seq[Place.MIN] += 1
        gave = True
    lists.seq[Place.MAX] += 1
    return gave


@kernel
def advance(lists):  # type: ignore[no-untyped-def]
    """Leave generations behind whose rings are empty (try_to_inc_min_seq); return how many."""
    left = np.int64(0)
    while lists.seq[Place.MIN] + LEAST <= lists.seq[Place.MAX]:
        ring = len(lists.gen) + lists.seq[Place.MIN] % MOST
        if lists.before[ring] != ring:
            break
        lists.seq[Place.MIN] += 1
        left += 1
    return left


@kernel
def sort_out(lists, tier, most, enough, victims):  # type: ignore[no-untyped-def]
    """Look at pages at the tail of the oldest generation; take out those that may be evicted (scan_folios).

    Parameters
    ----------
    lists : Generations
        Of a memory.
    tier : int
        Pages above it are protected: they go to the next generation.
    most, enough : int
        Pages to look at, and to take out, at most.
    victims : int64[enough]
        Filled: those, which are of no generation any more.

    Returns
    -------
    (looked, found) : tuple of int
        How many were looked at, and filled.
    """
    oldest = lists.seq[Place.MIN] % MOST
    ring = len(lists.gen) + oldest
    looked, found = np.int64(0), np.int64(0)
    while looked < most and found < enough and lists.before[ring] != ring:
        number = np.int64(lists.before[ring])
        looked += 1
        refs = np.int64(lists.refs[number])
        if lists.gen[number] - 1 != oldest:
            lists.counts[Count.PROMOTED] += 1
            _unlink(lists, number)
            _link(lists, number, np.int64(lists.gen[number]) - 1, False)
        elif _tier(refs) > tier or refs >= PROTECTED:
            lists.counts[Count.PROTECTED] += 1
            lists.protected[_tier(refs)] += 1
            _take_along(lists, number, oldest, True)
        else:
            _drop(lists, number)
            victims[found] = number
            found += 1
    lists.counts[Count.SCANNED] += looked
    return looked, found
