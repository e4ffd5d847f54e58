"""Set-associative memories: the common stuff of TLBs, page walk caches and data caches.

A unit is an array of sets. A set is one record whose fields have a fixed length, so the number of ways is part of
the type and a constant to the compiler, and so is the policy of replacement. With exact LRU way 0 is the most recently
used; a hit or a fill moves its tag to the front. With any other policy tags stay in their ways, and each way has an age
(`vmsim.machine.replacement`).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from vmsim.jit import leaf, routine
from vmsim.machine.replacement import KIND_BITS, Policy, Use, choose, insertion, note_miss, side, use

__all__ = [
    "ANY",
    "EMPTY",
    "MISS",
    "Place",
    "bring",
    "bring_by_duel",
    "drop_at",
    "drop_way",
    "fill",
    "fill_at",
    "has",
    "keyed_set",
    "lookup",
    "lookup_at",
    "renew",
    "tag_set",
    "take",
    "touch",
    "touch_shared",
    "words_of_set",
]

EMPTY = -1  # no tag is negative
MISS = -1  # no value is negative
ANY = -1  # a mask of all ways


class Place(IntEnum):
    """What is said of where a unit of keyed sets lies in the words of its core; a set is its tags, values and ages."""

    FIRST = 0  # its first word
    SETS = 1
    WAYS = 2
    POLICY = 3  # of replacement; 0: exact LRU, without ages
    FOLD = 4  # a key's bits from here on are folded into the number of the set by XOR; 63: none are
    NOTES = 5  # words of a set after its ages: lines that other caches hold (vmsim.machine.held), or of a duel


def _set(ways: int, columns: tuple[str, ...], policy: int, notes: int = 0) -> np.dtype:
    fields = [(name, "i8", (ways,)) for name in columns]
    ages = ways if policy else 0
    more = [("age", "i8", (ages,)), ("notes", "i8", (notes,)), ("policy", "i8", (policy, 0))]
    return np.dtype((np.record, [*fields, *more]))


def tag_set(ways: int, policy: int = 0, notes: int = 0) -> np.dtype:
    """Return the type of a set that remembers presence only (caches), and has so many words of notes."""
    return _set(ways, ("tag",), policy, notes)


def keyed_set(ways: int, policy: int = 0) -> np.dtype:
    """Return the type of a set that keeps a value with each tag (TLBs, page walk caches)."""
    return _set(ways, ("tag", "value"), policy)


# What a set does by its policy, where that is not exact LRU: the length of `policy` is its number.


@leaf
def _how(gone):
    """Return how a way is used that had this tag before."""
    return np.int64(Use.FILLED) if gone == EMPTY else np.int64(Use.REPLACED)


@leaf
def _find(kept, tag):
    """Return the way that has a tag, and note its use; or MISS."""
    for way in range(len(kept.tag)):
        if kept.tag[way] == tag:
            use(len(kept.policy), kept.tag, np.int64(0), kept.age, np.int64(0), len(kept.tag), way, np.int64(Use.HIT))
            return way
    return MISS


@leaf
def _put(kept, tag, mask):
    """Put a tag into a way of those in the mask; return the way, and the tag that made room, or EMPTY."""
    policy = len(kept.policy)
    ways = len(kept.tag)
    way = choose(policy, kept.tag, np.int64(0), kept.age, np.int64(0), ways, np.int64(mask))
    gone = kept.tag[way]
    kept.tag[way] = tag
    use(policy, kept.tag, np.int64(0), kept.age, np.int64(0), ways, way, _how(gone))
    return way, gone


@leaf
def _touch_ways(kept, tag, mask):
    """Return whether a tag was in the set; it is now, in a way of those in the mask if it was not."""
    if _find(kept, tag) >= 0:
        return True
    _put(kept, tag, mask)
    return False


# A loop over few ways unrolls: their number is a constant. Not so for a large fully associative set, which would take
# minutes to compile: there `tag >> 62`, which is 0, is taken off, and only the running program knows that.


@leaf
def touch(kept, tag):
    """Return whether `tag` was in the set; it is now, as the most recent, and the oldest made room for it."""
    if len(kept.policy):
        return _touch_ways(kept, tag, ANY)
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
    if len(kept.policy):
        at = _find(kept, tag)
        return kept.value[at] if at >= 0 else MISS
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
    if len(kept.policy):
        at, _ = _put(kept, tag, ANY)
        kept.value[at] = value
        return
    tags = kept.tag
    values = kept.value
    ways = len(tags) if len(tags) <= 16 else len(tags) - (tag >> 62)
    for way in range(ways - 1, 0, -1):
        tags[way] = tags[way - 1]
        values[way] = values[way - 1]
    tags[0] = tag
    values[0] = value


@leaf
def renew(kept, tag, value):
    """Give `tag`, which was looked up just now and is there, another value."""
    way = 0
    if len(kept.policy):
        while kept.tag[way] != tag:
            way += 1
    kept.value[way] = value


# The same of caches of which each may use some ways alone, and which are filled by what leaves others.


@leaf
def touch_shared(kept, tag, mask):
    """Return what `touch` does, if the ways in the mask alone may be filled; with exact LRU all are."""
    if len(kept.policy) == 0:
        return touch(kept, tag)
    return _touch_ways(kept, tag, mask)


@routine
def bring(kept, tag, mask):
    """Do what `touch_shared` does; return (whether `tag` was in the set, the tag that made room for it or EMPTY)."""
    tags = kept.tag
    if len(kept.policy):
        if _find(kept, tag) >= 0:
            return True, np.int64(EMPTY)
        _, gone = _put(kept, tag, mask)
        return False, gone
    newer = tag
    for way in range(len(tags)):
        here = tags[way]
        tags[way] = newer
        if here == tag:
            return True, np.int64(EMPTY)
        newer = here
    return False, newer


@routine
def bring_by_duel(kept, first, tag, mask):
    """Do what `bring` does where sets duel; `first` is the first set of the cache, which keeps the score."""
    ways = len(kept.tag)
    way = np.int64(0)
    by = side(len(kept.policy), kept.notes, first.notes)
    while way < ways and kept.tag[way] != tag:
        way += 1
    how = np.int64(Use.HIT)
    gone = np.int64(EMPTY)
    if way == ways:
        note_miss(kept.notes, first.notes)
        by = insertion(by, kept.notes)
    policy = by << KIND_BITS | Policy.QLRU
    if way == ways:
        way = choose(policy, kept.tag, np.int64(0), kept.age, np.int64(0), ways, mask)
        gone = kept.tag[way]
        how = _how(gone)
        kept.tag[way] = tag
    use(policy, kept.tag, np.int64(0), kept.age, np.int64(0), ways, way, how)
    return how == Use.HIT, gone


@routine
def take(kept, tag):
    """Return whether `tag` was in the set; it is not any more, and the others keep their age."""
    tags = kept.tag
    for way in range(len(tags)):
        if tags[way] == tag:
            if len(kept.policy) == 0:
                for older in range(way, len(tags) - 1):
                    tags[older] = tags[older + 1]
                way = len(tags) - 1
            tags[way] = EMPTY
            return True
    return False


@leaf
def has(kept, tag):
    """Return whether `tag` is in the set, of which nothing changes."""
    for way in range(len(kept.tag)):  # noqa: SIM110
        if kept.tag[way] == tag:
            return True
    return False


# The same for rare paths, on the words of a core of any geometry, so that they are compiled once for all of them.


@leaf
def words_of_set(ways, policy):
    """Return how many words a keyed set has."""
    return ways * (3 if policy else 2)


@leaf
def _words_of(units, number, key):
    """Return (first word, ways, policy) of the set of `key` in unit `number`."""
    place = units.place[number]
    index = (key ^ (key >> place[Place.FOLD])) & (place[Place.SETS] - 1)
    ways, policy = place[Place.WAYS], place[Place.POLICY]
    return place[Place.FIRST] + index * words_of_set(ways, policy), ways, policy


@routine
def lookup_at(words, units, number, key, tag):
    """Return what `lookup` does, in unit `number` (of layout.KEYED), where `key` says which set."""
    first, ways, policy = _words_of(units, number, key)
    for way in range(ways):
        if words[first + way] == tag:
            value = words[first + ways + way]
            if policy:
                use(policy, words, first, words, first + 2 * ways, ways, way, np.int64(Use.HIT))
                return value
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
    first, ways, policy = _words_of(units, number, key)
    if policy:
        way = choose(policy, words, first, words, first + 2 * ways, ways, np.int64(ANY))
        how = _how(words[first + way])
        words[first + way] = tag
        words[first + ways + way] = value
        use(policy, words, first, words, first + 2 * ways, ways, way, how)
        return
    for way in range(ways - 1, 0, -1):
        words[first + way] = words[first + way - 1]
        words[first + ways + way] = words[first + ways + way - 1]
    words[first] = tag
    words[first + ways] = value


@leaf
def drop_way(words, first, ways, policy, way):
    """Empty a way of the set at words[first]; with exact LRU the others keep their age, and it becomes the oldest."""
    if policy == 0:
        for older in range(way, ways - 1):
            words[first + older] = words[first + older + 1]
            words[first + ways + older] = words[first + ways + older + 1]
        way = ways - 1
    words[first + way] = EMPTY


@routine
def drop_at(words, units, number, key, tag):
    """Empty the way of unit `number` that holds `tag`, if any."""
    first, ways, policy = _words_of(units, number, key)
    for way in range(ways):
        if words[first + way] == tag:
            drop_way(words, first, ways, policy, way)
            return
