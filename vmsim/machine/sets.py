"""Set-associative memories with exact LRU: the common stuff of TLBs, page walk caches and data caches.

A unit is an array of sets. A set is one record whose fields have a fixed length, so the number of ways is part of
the type and a constant to the compiler. Way 0 is the most recently used; a hit or a fill moves its tag to the front.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from vmsim.jit import leaf, routine

__all__ = [
    "EMPTY",
    "MISS",
    "Place",
    "drop_at",
    "fill",
    "fill_at",
    "keyed_set",
    "lookup",
    "lookup_at",
    "tag_set",
    "touch",
]

EMPTY = -1  # no tag is negative
MISS = -1  # no value is negative


class Place(IntEnum):
    """What is said of where a unit of keyed sets lies in the words of its core; a set is its tags, then its values."""

    FIRST = 0  # its first word
    SETS = 1
    WAYS = 2
    FOLD = 3  # a key's bits from here on are folded into the number of the set by XOR; 63: none are


def tag_set(ways: int) -> np.dtype:
    """Return the type of a set that remembers presence only (caches)."""
    return np.dtype((np.record, [("tag", "i8", (ways,))]))


def keyed_set(ways: int) -> np.dtype:
    """Return the type of a set that keeps a value with each tag (TLBs, page walk caches)."""
    return np.dtype((np.record, [("tag", "i8", (ways,)), ("value", "i8", (ways,))]))


# A loop over few ways unrolls: their number is a constant. Not so for a large fully associative set, which would take
# minutes to compile: there `tag >> 62`, which is 0, is taken off, and only the running program knows that.


@leaf
def touch(kept, tag):
    """Return whether `tag` was in the set; it is now, as the most recent, and the oldest made room for it."""
    tags = kept.tag
    ways = len(tags) if len(tags) <= 16 else len(tags) - (tag >> 62)
    newer = tag
    for way in range(ways):
        here = tags[way]
        tags[way] = newer
        if here == tag:
            return True
        newer = here
    return False


@leaf
def lookup(kept, tag):
    """Return the value kept with `tag`, or MISS; a hit becomes the most recent."""
    tags = kept.tag
    values = kept.value
    ways = len(tags) if len(tags) <= 16 else len(tags) - (tag >> 62)
    for way in range(ways):
        if tags[way] == tag:
            value = values[way]
            for newer in range(way, 0, -1):
                tags[newer] = tags[newer - 1]
                values[newer] = values[newer - 1]
            tags[0] = tag
            values[0] = value
            return value
    return MISS


@leaf
def fill(kept, tag, value):
    """Put `tag` and its value into the set as the most recent; the oldest makes room."""
    tags = kept.tag
    values = kept.value
    ways = len(tags) if len(tags) <= 16 else len(tags) - (tag >> 62)
    for way in range(ways - 1, 0, -1):
        tags[way] = tags[way - 1]
        values[way] = values[way - 1]
    tags[0] = tag
    values[0] = value


# The same for rare paths, on the words of a core of any geometry, so that they are compiled once for all of them.


@leaf
def _words_of(units, number, key):
    """Return (first word, ways) of the set of `key` in unit `number`."""
    place = units.place[number]
    index = (key ^ (key >> place[Place.FOLD])) & (place[Place.SETS] - 1)
    return place[Place.FIRST] + index * 2 * place[Place.WAYS], place[Place.WAYS]


@routine
def lookup_at(words, units, number, key, tag):
    """Return what `lookup` does, in unit `number` (of layout.KEYED), where `key` says which set."""
    first, ways = _words_of(units, number, key)
    for way in range(ways):
        if words[first + way] == tag:
            value = words[first + ways + way]
            for newer in range(way, 0, -1):
                words[first + newer] = words[first + newer - 1]
                words[first + ways + newer] = words[first + ways + newer - 1]
            words[first] = tag
            words[first + ways] = value
            return value
    return MISS


@routine
def fill_at(words, units, number, key, tag, value):
    """Do what `fill` does, in unit `number`."""
    first, ways = _words_of(units, number, key)
    for way in range(ways - 1, 0, -1):
        words[first + way] = words[first + way - 1]
        words[first + ways + way] = words[first + ways + way - 1]
    words[first] = tag
    words[first + ways] = value


@routine
def drop_at(words, units, number, key, tag):
    """Empty the way of unit `number` that holds `tag`, if any; the others keep their age, and it becomes the oldest."""
    first, ways = _words_of(units, number, key)
    for way in range(ways):
        if words[first + way] == tag:
            for older in range(way, ways - 1):
                words[first + older] = words[first + older + 1]
                words[first + ways + older] = words[first + ways + older + 1]
            words[first + ways - 1] = EMPTY
            return
