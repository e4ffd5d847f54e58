"""Exact LRU and FIFO with tags that stay in their ways: an age is how many ways were used, or filled, since."""

from __future__ import annotations

from vmsim.jit import leaf

__all__ = ["choose_oldest", "make_newest"]


@leaf
def make_newest(age, first, ways, way):
    """Make a way the newest of its set."""
    before = age[first + way]
    for other in range(ways):
        age[first + other] += age[first + other] < before
    age[first + way] = 0


@leaf
def choose_oldest(age, first, ways, mask):
    """Return the oldest way in the mask."""
    chosen = 0
    oldest = -1
    for way in range(ways):
        if mask >> way & 1 and age[first + way] > oldest:
            oldest = age[first + way]
            chosen = way
    return chosen
