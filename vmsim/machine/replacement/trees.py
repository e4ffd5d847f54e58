"""Trees of four ways each, tree PLRU within them, and an order among them.

lru-plru4: the tree used least recently is replaced in (LRU3PLRU4, the L1 of Ice Lake: uops.info, caches).
mru-plru4: the one after that used last is ((MRU+1)%3PLRU4, the second-level TLB of Skylake: A. Tatar et al., TLB;DR,
USENIX Security 2022). The first word of each tree, which tree PLRU leaves alone, says how many were used since.
"""

from __future__ import annotations

from vmsim.jit import leaf
from vmsim.machine.replacement.plru import choose_by_tree, turn_away

__all__ = ["choose_in_trees", "use_in_trees"]


@leaf
def use_in_trees(age, first, ways, way):
    """Note that a way was used."""
    tree = first + (way & ~3)
    turn_away(age, tree, 4, way & 3)
    before = age[tree]
    for other in range(first, first + ways, 4):
        age[other] += age[other] < before
    age[tree] = 0


@leaf
def choose_in_trees(age, first, ways, mask, after_newest):
    """Return the way in the mask to replace: in the tree after the newest, or in the oldest."""
    trees = ways >> 2
    tree = 0
    for other in range(trees):
        newest = after_newest and age[first + 4 * other] == 0
        if newest or (not after_newest and age[first + 4 * other] == trees - 1):
            tree = (other + 1) % trees if after_newest else other
    for _ in range(trees):  # where ways are shared out, the first from there on with one that may be replaced
        if mask >> 4 * tree & 15:
            break
        tree = (tree + 1) % trees
    return 4 * tree + choose_by_tree(age, first + 4 * tree, 4, mask >> 4 * tree & 15)
