"""Which lines the second-level caches of the cores around an LLC hold: a word for each, in the LLC's set of the line.

AMD's L3s keep such a copy of the L2s' tags (shadow tags), Intel's since Skylake-X a filter of snoops. A line is there
as often as L2s have it. No set can have more than the L2s' ways, so that there is always room once what made way for a
line is released (`held_words`).
"""

from __future__ import annotations

from vmsim.jit import leaf

__all__ = ["held_words", "hold", "holds", "release"]


def held_words(cores: int, l2_sets: int, l2_ways: int, llc_sets: int) -> int:
    """Return the words that a set of the LLC needs for the lines in the L2s of `cores` cores.

    Lines of one set of the LLC, of `llc_sets` in a slice, lie in as many sets of an L2 as it has more of them. The
    cores are rounded up to a power of two, so that few hosts differ in machine code; one alone has nobody to ask.
    """
    return (1 << (cores - 1).bit_length()) * l2_ways * max(1, l2_sets // llc_sets) if cores > 1 else 0


@leaf
def holds(held, line):
    """Return whether an L2 holds a line."""
    for place in range(len(held)):  # noqa: SIM110
        if held[place] == line + 1:
            return True
    return False


@leaf
def hold(held, line):
    """Note that one more L2 holds a line."""
    place = 0
    while held[place]:
        place += 1
    held[place] = line + 1


@leaf
def release(held, line):
    """Note that one L2 less holds a line."""
    place = 0
    while held[place] != line + 1:
        place += 1
    held[place] = 0
