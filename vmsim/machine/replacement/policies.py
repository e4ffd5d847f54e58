"""The policies behind one pair of calls: a way was used; a way is to be filled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vmsim.jit import leaf
from vmsim.machine.replacement.names import KIND_BITS, Policy, Use
from vmsim.machine.replacement.nru import choose_unused, note_use
from vmsim.machine.replacement.order import choose_oldest, make_newest
from vmsim.machine.replacement.plru import choose_by_tree, turn_away
from vmsim.machine.replacement.qlru import AGES, age_before_miss, choose_aged, fill_last, use_aged
from vmsim.machine.replacement.random import choose_at_random
from vmsim.machine.replacement.trees import choose_in_trees, use_in_trees

__all__ = ["ages_of", "choose", "use"]

_KIND = (1 << KIND_BITS) - 1
_EMPTY = -1  # sets.EMPTY


def ages_of(policy: int, sets: int, ways: int, seed: Sequence[int] = ()) -> np.ndarray:
    """Return the ages of empty sets, int64[sets, ways]; `seed` is of the draws of random replacement."""
    kind = policy & _KIND
    ages = np.zeros((sets, ways), np.int64)
    if kind in (Policy.LRU_BY_WAY, Policy.FIFO):
        ages[:] = np.arange(ways)
    elif kind in (Policy.LRU_PLRU4, Policy.MRU_PLRU4):
        ages[:, ::4] = np.arange(ways // 4)
    elif kind in (Policy.NRU, Policy.MRU, Policy.MRU_N):
        ages[:] = 1
    elif kind in (Policy.QLRU, Policy.DUEL):
        ages[:] = AGES
    elif kind == Policy.RANDOM:
        ages[:, 0] = np.random.default_rng([*seed, sets, ways]).integers(0, 1 << 31, sets)
    return ages


@leaf
def _full(tags, tag, ways):
    filled = 0
    for way in range(ways):
        filled += tags[tag + way] != _EMPTY
    return filled == ways


@leaf
def use(policy, tags, tag, age, first, ways, way, how):
    """Note that a way was used; the set has what it holds by now.

    Parameters
    ----------
    policy : int
    tags, tag : words, int
        Where the set's tags are: at tags[tag] and on.
    age, first : words, int
        Its ages, likewise.
    ways, way : int
    how : Use
    """
    kind = policy & _KIND
    if kind == Policy.PLRU:
        turn_away(age, first, ways, way)
    elif kind == Policy.QLRU:
        use_aged(policy >> KIND_BITS, age, first, ways, way, how != Use.HIT)
    elif kind == Policy.LRU_PLRU4 or kind == Policy.MRU_PLRU4:
        use_in_trees(age, first, ways, way)
    elif kind == Policy.LRU_BY_WAY or kind == Policy.FIFO:
        if kind == Policy.LRU_BY_WAY or how != Use.HIT:
            make_newest(age, first, ways, way)
    elif kind == Policy.NRU or kind == Policy.MRU:
        note_use(age, first, ways, way, kind == Policy.MRU)
    elif kind == Policy.MRU_N and how != Use.FILLED and _full(tags, tag, ways):
        note_use(age, first, ways, way, True)


@leaf
def choose(policy, tags, tag, age, first, ways, mask):
    """Return the way to fill, of those in the mask, which has at least one: an empty one, or one to replace."""
    kind = policy & _KIND
    parameters = policy >> KIND_BITS
    if kind == Policy.QLRU:
        age_before_miss(parameters, age, first, ways)
    if not _full(tags, tag, ways):  # asked first: most sets are, and it takes no branch for each way
        empty = -1
        for way in range(ways):
            if mask >> way & 1 and tags[tag + way] == _EMPTY:
                empty = way
                if kind != Policy.QLRU or not fill_last(parameters):
                    return empty
        if empty >= 0:
            return empty
    if kind == Policy.PLRU:
        return choose_by_tree(age, first, ways, mask)
    if kind == Policy.QLRU:
        return choose_aged(parameters, age, first, ways, mask)
    if kind == Policy.LRU_PLRU4 or kind == Policy.MRU_PLRU4:
        return choose_in_trees(age, first, ways, mask, kind == Policy.MRU_PLRU4)
    if kind == Policy.NRU or kind == Policy.MRU or kind == Policy.MRU_N:
        return choose_unused(age, first, ways, mask)
    if kind == Policy.RANDOM:
        return choose_at_random(age, first, ways, mask)
    return choose_oldest(age, first, ways, mask)
