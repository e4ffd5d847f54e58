"""Not recently used: a bit for each way, 1 until it is used; the first way with 1 is replaced.

When no 1 is left: nru sets all of them, before it replaces (A. Jaleel et al., RRIP, ISCA 2010); mru all but that just
used, after it (bit-PLRU: the L3 of Nehalem, uops.info); mru_n as mru, but takes no notes until the set is full (the L3
of Sandy Bridge, ibid.).
"""

from __future__ import annotations

from vmsim.jit import leaf

__all__ = ["choose_unused", "note_use"]


@leaf
def note_use(age, first, ways, way, renews):
    """Note that a way was used; where that was the last 1, and the bits are renewed then, all others are 1."""
    age[first + way] = 0
    if renews:
        for other in range(ways):
            if age[first + other]:
                return
        for other in range(ways):
            age[first + other] = 1 if other != way else 0


@leaf
def choose_unused(age, first, ways, mask):
    """Return the first way in the mask whose bit is 1; if there is none, all bits are 1 first."""
    for way in range(ways):
        if mask >> way & 1 and age[first + way]:
            return way
    for way in range(ways):
        age[first + way] = 1
    for way in range(ways):
        if mask >> way & 1:
            return way
    return 0
