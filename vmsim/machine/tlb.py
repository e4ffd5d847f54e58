"""Translation look-aside buffers: two levels, an array of sets per page size or one shared by several.

The size cached is the smaller of the guest's page and the host's (a large guest page on small host pages is
"splintered"). A tag is asid | vpn << 2 | size code, so sizes can share an array and address spaces can share a TLB
(Intel SDM vol. 3C §30.1 VPID; AMD APM vol. 2 §15.16 ASID). Which sizes are present at all is kept in a mask, so a size
that nobody uses costs no probe.
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import leaf, routine
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.sets import MISS, drop_at, fill_at, lookup_at

__all__ = ["ASID_SHIFT", "drop_page", "fill_large", "lookup_large", "set_at", "tag_of"]

ASID_SHIFT = 47  # above the 45 bits of a 5-level vpn and the 2 of the size code


@leaf
def tag_of(asid, gva, size):
    """Return the tag of the page of `size` that holds `gva`; `asid` comes shifted by ASID_SHIFT."""
    return asid | (gva >> (PAGE_SHIFT + 9 * size)) << 2 | size


@leaf
def set_at(sets, fold, vpn):
    """Return which of so many sets a vpn lives in: its low bits, with the bits `fold` places up folded in by XOR."""
    return np.uint64((vpn ^ (vpn >> fold)) & (sets - 1))


@routine
def lookup_large(words, units, asid, gva):
    """Return (level, size, translation) of a 2 MiB or 1 GiB page from level 1 or 2, or (0, 0, MISS)."""
    for level in range(2):
        for size in range(1, 3):
            number = units.home[level, size]
            if number >= 0 and units.sizes & (1 << size):
                vpn = gva >> (PAGE_SHIFT + 9 * size)
                translation = lookup_at(words, units, number, vpn, tag_of(asid, gva, size))
                if translation != MISS:
                    return level + 1, size, translation
    return 0, 0, MISS


@routine
def fill_large(words, units, level, asid, gva, size, translation):
    """Keep the translation of a 2 MiB or 1 GiB page in a level, if that keeps pages of this size."""
    units.sizes |= 1 << size
    number = units.home[level - 1, size]
    if number >= 0:
        fill_at(words, units, number, gva >> (PAGE_SHIFT + 9 * size), tag_of(asid, gva, size), translation)


@routine
def drop_page(words, units, asid, gva, size):
    """Remove one translation, of any size, from both levels."""
    for level in range(2):
        number = units.home[level, size]
        if number >= 0:
            drop_at(words, units, number, gva >> (PAGE_SHIFT + 9 * size), tag_of(asid, gva, size))
