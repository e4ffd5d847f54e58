"""Do the machine's sets keep what their policy says?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle.lru import Sets
from tests.oracle.replacement import BY_NUMBER, NAMES, WaySets
from vmsim.jit import kernel
from vmsim.machine import sets
from vmsim.machine.layout import UNITS
from vmsim.machine.replacement import ages_of, policy_of
from vmsim.machine.sets import EMPTY, MISS, keyed_set, tag_set

fill, lookup, touch, drop_at, fill_at, lookup_at = (
    kernel(getattr(each, "py_func", each))
    for each in (sets.fill, sets.lookup, sets.touch, sets.drop_at, sets.fill_at, sets.lookup_at)
)

WAYS, SETS, UNIT = 3, 2, 5
KEYS = st.integers(0, 9)
OPERATIONS = st.lists(st.tuples(st.sampled_from(["lookup", "fill", "drop"]), st.booleans(), KEYS, st.integers(0, 99)))


def empty(dtype, policy=0, ways=WAYS):
    sets = np.zeros(SETS, dtype)
    sets["tag"] = EMPTY
    if policy:
        sets["age"] = ages_of(policy, SETS, ways, (7,))
    return sets


@given(OPERATIONS)
def test_a_keyed_set_is_an_ordered_dict_that_forgets_the_oldest(operations):
    ours, theirs = empty(keyed_set(WAYS)), Sets(SETS, WAYS)
    words, units = ours.view(np.int64), np.zeros(1, UNITS)[0]
    units["place"][UNIT] = 0, SETS, WAYS, 0, 63, 0
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


def ways_of(name):
    return {"plru": 8, "lru-plru4": 12, "mru-plru4": 12}.get(name, 5)


def policies(name):
    return policy_of(name, by_way=True), ways_of(name)


OPERATION = st.tuples(st.sampled_from(["lookup", "lookup", "drop"]), st.booleans(), st.integers(0, 31))


# Sets as records are a type for each policy: to compile all would take a minute. Called from here they run as Python,
# and those of words compiled; those of cores are in test_machine_agreement.py.


@pytest.mark.parametrize("name", ["lru", *NAMES])
@settings(max_examples=40)
@given(st.lists(OPERATION, max_size=120))
def test_a_keyed_set_replaces_by_its_policy(name, operations):
    policy, ways = policies(name)
    ours = empty(keyed_set(ways, policy), policy, ways)
    theirs = WaySets(SETS, ways, name, ours["age"][:, 0])
    words, units = ours.view(np.int64), np.zeros(1, UNITS)[0]
    units["place"][UNIT] = 0, SETS, ways, policy, 63, 0
    for operation, by_words, key in operations:
        kept = ours.view(np.recarray)[key % SETS]
        if operation == "drop":
            drop_at(words, units, UNIT, key, key)
            theirs.drop(key, key)
            continue
        found = theirs.get(key, key)
        assert (lookup_at(words, units, UNIT, key, key) if by_words else sets.lookup(kept, key)) == (
            MISS if found is None else found
        )
        if found is None:
            if by_words:
                fill_at(words, units, UNIT, key, key, key + 100)
            else:
                sets.fill(kept, key, key + 100)
            theirs.put(key, key, key + 100)
        assert [
            [(int(t), int(v)) if t != EMPTY else None for t, v in zip(each["tag"], each["value"], strict=True)]
            for each in ours
        ] == theirs.contents()


@pytest.mark.parametrize("number", [0, *BY_NUMBER], ids=lambda number: BY_NUMBER.get(number, "moves"))
@settings(max_examples=25)
@given(st.data())
def test_a_cache_fills_the_ways_it_may_and_says_what_made_room(number, data):
    name = BY_NUMBER.get(number, "lru")
    ways = ways_of(name)
    ours = empty(tag_set(ways, number), number, ways)
    theirs = WaySets(SETS, ways, name, ours["age"][:, 0]) if number else Sets(SETS, ways)
    for _ in range(data.draw(st.integers(0, 60))):
        key = data.draw(st.integers(0, 31))
        what = data.draw(st.sampled_from(["touch", "bring", "take"]))
        kept = ours[key % SETS]
        if what == "take":
            assert sets.take(kept, key) == theirs.drop(key, key)
            continue
        allowed = data.draw(st.sets(st.integers(0, ways - 1), min_size=1))
        mask = sum(1 << way for way in allowed)
        was_there = theirs.get(key, key) is not None
        gone = None if was_there else theirs.put(key, key, True, allowed)
        if what == "touch":
            assert sets.touch_shared(kept, key, mask) == was_there
        else:
            assert sets.bring(kept, key, mask) == (was_there, EMPTY if gone is None else gone)
        if number:
            assert ours["tag"].tolist() == [[EMPTY if w is None else w[0] for w in each] for each in theirs.contents()]
