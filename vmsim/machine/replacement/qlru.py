"""Quad-age LRU: an age of 0 to 3 for each way, in the variants and by the names of nanoBench (QLRU_H11_M1_R0_U0).

H: a hit makes age 3 the first digit, age 2 the second, any other 0. M: the age at which a line comes in. R: the first
way of age 3 is replaced, and an empty one filled before; R2 fills the last of the empty ways. Where no way has age 3,
R0 and R2, whose updates never leave it so, take the oldest; R1 takes the first. U: after each use, if no way has
age 3, U0 adds to every age what the oldest lacks, U1 the same by, and to, all but the way used; U2 and U3 add 1. UMO:
this is done on misses alone, before the replacement.

A. Abel and J. Reineke, nanoBench, ISPASS 2020, section VI; uops.info, caches.
"""

from __future__ import annotations

from vmsim.jit import leaf

__all__ = ["AGES", "age_before_miss", "choose_aged", "fill_last", "use_aged"]

AGES = 3  # the greatest


@leaf
def _add(parameters, age, first, ways, used):
    """Make the ways older, all but `used` with U1 and U3 (-1: none was)."""
    update = parameters >> 7 & 3
    spares = update & 1
    oldest = 0
    for way in range(ways):
        if update != 1 or way != used:  # U1 does not see the way used, U3 does
            oldest = max(oldest, age[first + way])
    if oldest == AGES:
        return
    more = 1 if update & 2 else AGES - oldest
    for way in range(ways):
        if not spares or way != used:
            age[first + way] += more


@leaf
def use_aged(parameters, age, first, ways, way, fills):
    """Note that a way was hit, or filled."""
    before = age[first + way]
    if fills:
        age[first + way] = parameters >> 3 & 3
    else:
        age[first + way] = (parameters & 3 if before == AGES else parameters >> 2 & 1) if before >= 2 else 0
    if parameters >> 9 & 1 == 0:
        _add(parameters, age, first, ways, way)


@leaf
def fill_last(parameters):
    """Return whether the last of the empty ways is filled, not the first."""
    return parameters >> 5 & 3 == 2


@leaf
def choose_aged(parameters, age, first, ways, mask):
    """Return the way in the mask to replace."""
    chosen = -1
    oldest = -1
    least = AGES if parameters >> 5 & 3 == 1 else 0
    for way in range(ways):
        if mask >> way & 1:
            if chosen < 0:
                chosen = way
            if age[first + way] > oldest and age[first + way] >= least:
                oldest = age[first + way]
                chosen = way
    return chosen


@leaf
def age_before_miss(parameters, age, first, ways):
    """Make the ways older before a way is chosen, where that is done on misses alone."""
    if parameters >> 9 & 1:
        _add(parameters, age, first, ways, -1)
