"""Sets that duel: some replace by one quad-age LRU, some by another, and the rest by the one that misses less.

A counter of the cache goes up with each miss of the sets that lead for the first policy, and down with each of those
that lead for the second; the rest follow the second while it is in its upper half (M. K. Qureshi et al., Adaptive
Insertion Policies, ISCA 2007, which has 10 bits). In the names of the two, which nanoBench's `/` parts here, MR161 says
that a line comes in at age 1 once in 16 times, drawn, and at age 3 else. Intel's L3s since Ivy Bridge do so (nanoBench,
ISPASS 2020, section VI; uops.info, caches).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from vmsim.jit import leaf
from vmsim.machine.replacement.names import KIND_BITS, QLRU_BITS, RARELY, Policy
from vmsim.machine.replacement.qlru import AGES

__all__ = ["COUNTER", "DUEL_NOTES", "MIDDLE", "duels", "insertion", "note_miss", "notes_of", "side"]

# What is noted of a set
_ROLE: Final = 0  # 1: it leads for the first policy, 2: for the second, 0: it follows
COUNTER: Final = 1  # of the first set: the cache's
_STATE: Final = 2  # of the set's generator
DUEL_NOTES: Final = 3

MIDDLE: Final = 512
_TOP: Final = 1023
_LOW: Final = (1 << 31) - 1
_MISS_BIT: Final = 3  # of a quad-age LRU's parameters, where the age of a new line is


def notes_of(sets: int, leaders: Sequence[Sequence[int]], seed: Sequence[int]) -> np.ndarray:
    """Return what is noted of the sets of an empty cache, int64[sets, DUEL_NOTES]; `seed` is of the draws."""
    notes = np.zeros((sets, DUEL_NOTES), np.int64)
    for role, those in enumerate(leaders, 1):
        notes[list(those), _ROLE] = role
    notes[0, COUNTER] = MIDDLE - 1
    notes[:, _STATE] = np.random.default_rng([*seed, sets]).integers(0, 1 << 31, sets)
    return notes


@leaf
def duels(policy):
    """Return whether a policy is a duel of two."""
    return policy & ((1 << KIND_BITS) - 1) == Policy.DUEL


@leaf
def side(policy, notes, first):
    """Return the parameters of the quad-age LRU by which a set replaces; `first` is what is noted of the first set."""
    second = notes[_ROLE] == 2 or (notes[_ROLE] == 0 and first[COUNTER] >= MIDDLE)
    return policy >> (KIND_BITS + (QLRU_BITS if second else 0)) & ((1 << QLRU_BITS) - 1)


@leaf
def note_miss(notes, first):
    """Note that a set missed."""
    if notes[_ROLE] == 1:
        first[COUNTER] = min(first[COUNTER] + 1, _TOP)
    elif notes[_ROLE] == 2:
        first[COUNTER] = max(first[COUNTER] - 1, 0)


@leaf
def insertion(parameters, notes):
    """Return the parameters for one line to come in, where its age may be drawn."""
    if parameters & RARELY == 0:
        return parameters
    state = (notes[_STATE] * 1103515245 + 12345) & _LOW
    notes[_STATE] = state
    return parameters if (state >> 8) & 15 == 0 else parameters | AGES << _MISS_BIT
