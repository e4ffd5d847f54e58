"""Random replacement: each set draws from a generator of its own, so that what others do does not change its draws."""

from __future__ import annotations

from vmsim.jit import leaf

__all__ = ["choose_at_random"]

_LOW = (1 << 31) - 1


@leaf
def choose_at_random(age, first, ways, mask):
    """Return a way in the mask; the word of the first way is the state of the generator (that of ANSI C's manual)."""
    may = 0
    for way in range(ways):
        may += mask >> way & 1
    state = (age[first] * 1103515245 + 12345) & _LOW
    age[first] = state
    left = (state >> 8) % may
    for way in range(ways):
        if mask >> way & 1:
            if left == 0:
                return way
            left -= 1
    return 0
