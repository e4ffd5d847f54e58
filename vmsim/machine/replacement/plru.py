"""Tree PLRU: a bit at each fork of a binary tree over the ways says which half was used less recently.

The tree of n ways, a power of two, has its forks in words 1 to n - 1: below fork f are forks 2f and 2f + 1, and way w
where fork n + w would be. A way that is used turns the forks above it away (A. Abel and J. Reineke, nanoBench, ISPASS
2020, section VI). Where some ways may not be replaced, a fork whose half has none that may does not count.
"""

from __future__ import annotations

from vmsim.jit import leaf

__all__ = ["choose_by_tree", "turn_away"]


@leaf
def turn_away(age, first, ways, way):
    """Turn the forks above a way away from it."""
    fork = ways + way
    size = ways
    while size > 1:  # as often for each way: the loop unrolls
        age[first + (fork >> 1)] = 1 - (fork & 1)
        fork >>= 1
        size >>= 1


@leaf
def choose_by_tree(age, first, ways, mask):
    """Return the way in the mask that the forks lead to."""
    fork = 1
    size = ways
    while size > 1:
        size >>= 1
        fork = 2 * fork + age[first + fork]
        low = fork * size - ways
        if mask >> low & ((1 << size) - 1) == 0:
            fork ^= 1
    return fork - ways
