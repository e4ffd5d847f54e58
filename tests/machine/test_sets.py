"""Do the machine's sets keep exact LRU?"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.oracle.lru import Sets
from vmsim.jit import kernel
from vmsim.machine import sets
from vmsim.machine.layout import UNITS
from vmsim.machine.sets import EMPTY, MISS, keyed_set, tag_set

fill, lookup, touch, drop_at, fill_at, lookup_at = (
    kernel(getattr(each, "py_func", each))
    for each in (sets.fill, sets.lookup, sets.touch, sets.drop_at, sets.fill_at, sets.lookup_at)
)

WAYS, SETS, UNIT = 3, 2, 5
KEYS = st.integers(0, 9)
OPERATIONS = st.lists(st.tuples(st.sampled_from(["lookup", "fill", "drop"]), st.booleans(), KEYS, st.integers(0, 99)))


def empty(dtype):
    sets = np.zeros(SETS, dtype)
    sets["tag"] = EMPTY
    return sets


@given(OPERATIONS)
def test_a_keyed_set_is_an_ordered_dict_that_forgets_the_oldest(operations):
    ours, theirs = empty(keyed_set(WAYS)), Sets(SETS, WAYS)
    words, units = ours.view(np.int64), np.zeros(1, UNITS)[0]
    units["place"][UNIT] = 0, SETS, WAYS, 63
    for operation, by_words, key, value in operations:
        kept = ours[key % SETS]
        if operation == "drop":
            drop_at(words, units, UNIT, key, key)
            theirs.drop(key, key)
            continue
        found = theirs.get(key, key)
        got = lookup_at(words, units, UNIT, key, key) if by_words else lookup(kept, key)
        assert got == (MISS if found is None else found)
        if operation == "fill" and found is None:
            if by_words:
                fill_at(words, units, UNIT, key, key, value)
            else:
                fill(kept, key, value)
            theirs.put(key, key, value)
        now = [
            [(int(t), int(v)) for t, v in zip(each.tag, each.value, strict=True) if t != EMPTY]
            for each in ours.view(np.recarray)
        ]
        assert now == theirs.contents()


@given(st.lists(KEYS, max_size=60))
def test_touch_says_whether_the_tag_was_there_and_keeps_it_as_the_newest(tags):
    ours, theirs = empty(tag_set(WAYS)), Sets(SETS, WAYS)
    for tag in tags:
        was_there = theirs.get(tag, tag) is not None
        if not was_there:
            theirs.put(tag, tag, True)
        assert touch(ours[tag % SETS], tag) == was_there
    kept = [[int(tag) for tag in each if tag != EMPTY] for each in ours["tag"]]
    assert kept == [[tag for tag, _ in entries] for entries in theirs.contents()]
