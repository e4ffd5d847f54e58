"""Set-associative memories with exact LRU: the common stuff of TLBs, page walk caches and data caches.

A unit is an array of sets. A set is one record whose fields have a fixed length, so the number of ways is part of
the type and a constant to the compiler. Way 0 is the most recently used; a hit or a fill moves its tag to the front.
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import leaf, routine

__all__ = [
    "EMPTY",
    "MISS",
    "drop",
    "fill",
    "fill_called",
    "keyed_set",
    "lookup",
    "lookup_called",
    "tag_set",
    "touch",
]

EMPTY = -1  # no tag is negative
MISS = -1  # no value is negative


def tag_set(ways: int) -> np.dtype:
    """Return the type of a set that remembers presence only (caches)."""
    return np.dtype((np.record, [("tag", "i8", (ways,))]))


def keyed_set(ways: int) -> np.dtype:
    """Return the type of a set that keeps a value with each tag (TLBs, page walk caches)."""
    return np.dtype((np.record, [("tag", "i8", (ways,)), ("value", "i8", (ways,))]))


@leaf
def _ways(tags, tag):
    """Return the number of ways: a constant where there are few, so that loops over them unroll.

    Not so for a large fully associative set, which would take minutes to compile: the shift gives 0, but only the
    running program knows that.
    """
    if len(tags) <= 16:
        return len(tags)
    return len(tags) - (tag >> 62)


@leaf
def touch(sets, index, tag):
    """Return whether `tag` was in the set; it is now, as the most recent, and the oldest made room for it."""
    tags = sets[index].tag
    newer = tag
    for way in range(_ways(tags, tag)):
        here = tags[way]
        tags[way] = newer
        if here == tag:
            return True
        newer = here
    return False


def _lookup(sets, index, tag):
    """Return the value kept with `tag`, or MISS; a hit becomes the most recent."""
    entry = sets[index]
    tags = entry.tag
    values = entry.value
    for way in range(_ways(tags, tag)):
        if tags[way] == tag:
            value = values[way]
            for newer in range(way, 0, -1):
                tags[newer] = tags[newer - 1]
                values[newer] = values[newer - 1]
            tags[0] = tag
            values[0] = value
            return value
    return MISS


def _fill(sets, index, tag, value):
    """Put `tag` and its value into the set as the most recent; the oldest makes room."""
    entry = sets[index]
    tags = entry.tag
    values = entry.value
    for way in range(_ways(tags, tag) - 1, 0, -1):
        tags[way] = tags[way - 1]
        values[way] = values[way - 1]
    tags[0] = tag
    values[0] = value


# Inlined where speed counts; called elsewhere, so that rare paths do not repeat the code.
lookup = leaf(_lookup)
fill = leaf(_fill)
lookup_called = routine(_lookup)
fill_called = routine(_fill)


@routine
def drop(sets, index, tag):
    """Empty the way that holds `tag`, if any; the others keep their age and the empty way becomes the oldest."""
    tags = sets[index].tag
    values = sets[index].value
    last = _ways(tags, tag) - 1
    for way in range(last + 1):
        if tags[way] == tag:
            for older in range(way, last):
                tags[older] = tags[older + 1]
                values[older] = values[older + 1]
            tags[last] = EMPTY
            return
