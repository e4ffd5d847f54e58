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
from vmsim.machine.sets import MISS, drop, fill, fill_called, lookup, lookup_called

__all__ = [
    "ASID_SHIFT",
    "drop_page",
    "fill_large_l1",
    "fill_large_l2",
    "fill_small_l1",
    "fill_small_l2",
    "lookup_large",
    "lookup_small_l1",
    "lookup_small_l2",
    "set_at",
    "set_of",
    "tag_of",
]

ASID_SHIFT = 47  # above the 45 bits of a 5-level vpn and the 2 of the size code


@leaf
def tag_of(asid, gva, size):
    """Return the tag of the page of `size` that holds `gva`; `asid` comes shifted by ASID_SHIFT."""
    return asid | (gva >> (PAGE_SHIFT + 9 * size)) << 2 | size


@leaf
def set_at(sets, fold, vpn):
    """Return the set of a vpn: its low bits, with the bits `fold` places up folded in by XOR."""
    return np.uint64((vpn ^ (vpn >> fold)) & (len(sets) - 1))


@leaf
def set_of(sets, fold, tag):
    """Return the set a tag lives in."""
    return set_at(sets, fold, (tag & ((1 << ASID_SHIFT) - 1)) >> 2)


@leaf
def lookup_small_l1(core, vpn, tag):
    """Return the translation of a 4 KiB page from the first level, or MISS: the path of nearly every access."""
    return lookup(core.l1_tlb0, set_at(core.l1_tlb0, core.l1_fold[0], vpn), tag)


@leaf
def lookup_small_l2(core, vpn, tag):
    """Return the translation of a 4 KiB page from the second level, or MISS."""
    return lookup(core.l2_tlb0, set_at(core.l2_tlb0, core.l2_fold[0], vpn), tag)


@leaf
def fill_small_l1(core, vpn, tag, translation):
    """Keep the translation of a 4 KiB page in the first level."""
    fill(core.l1_tlb0, set_at(core.l1_tlb0, core.l1_fold[0], vpn), tag, translation)


@leaf
def fill_small_l2(core, vpn, tag, translation):
    """Keep the translation of a 4 KiB page in the second level."""
    fill(core.l2_tlb0, set_at(core.l2_tlb0, core.l2_fold[0], vpn), tag, translation)


@routine
def lookup_large(core, asid, gva):
    """Return (level, size, translation) of a 2 MiB or 1 GiB page from level 1 or 2, or (0, 0, MISS)."""
    for size in range(1, 3):
        if core.sizes & (1 << size):
            tag = tag_of(asid, gva, size)
            translation = MISS
            home = core.l1_home[size]
            if home == 0:
                translation = lookup_called(core.l1_tlb0, set_of(core.l1_tlb0, core.l1_fold[0], tag), tag)
            elif home == 1:
                translation = lookup_called(core.l1_tlb1, set_of(core.l1_tlb1, core.l1_fold[1], tag), tag)
            elif home == 2:
                translation = lookup_called(core.l1_tlb2, set_of(core.l1_tlb2, core.l1_fold[2], tag), tag)
            if translation != MISS:
                return 1, size, translation
    for size in range(1, 3):
        if core.sizes & (1 << size):
            tag = tag_of(asid, gva, size)
            translation = MISS
            home = core.l2_home[size]
            if home == 0:
                translation = lookup_called(core.l2_tlb0, set_of(core.l2_tlb0, core.l2_fold[0], tag), tag)
            elif home == 1:
                translation = lookup_called(core.l2_tlb1, set_of(core.l2_tlb1, core.l2_fold[1], tag), tag)
            elif home == 2:
                translation = lookup_called(core.l2_tlb2, set_of(core.l2_tlb2, core.l2_fold[2], tag), tag)
            if translation != MISS:
                return 2, size, translation
    return 0, 0, MISS


@routine
def fill_large_l1(core, size, tag, translation):
    """Keep the translation of a 2 MiB or 1 GiB page in the first level."""
    core.sizes |= 1 << size
    home = core.l1_home[size]
    if home == 0:
        fill_called(core.l1_tlb0, set_of(core.l1_tlb0, core.l1_fold[0], tag), tag, translation)
    elif home == 1:
        fill_called(core.l1_tlb1, set_of(core.l1_tlb1, core.l1_fold[1], tag), tag, translation)
    elif home == 2:
        fill_called(core.l1_tlb2, set_of(core.l1_tlb2, core.l1_fold[2], tag), tag, translation)


@routine
def fill_large_l2(core, size, tag, translation):
    """Keep the translation of a 2 MiB or 1 GiB page in the second level, if that keeps pages of this size."""
    home = core.l2_home[size]
    if home == 0:
        fill_called(core.l2_tlb0, set_of(core.l2_tlb0, core.l2_fold[0], tag), tag, translation)
    elif home == 1:
        fill_called(core.l2_tlb1, set_of(core.l2_tlb1, core.l2_fold[1], tag), tag, translation)
    elif home == 2:
        fill_called(core.l2_tlb2, set_of(core.l2_tlb2, core.l2_fold[2], tag), tag, translation)


@routine
def drop_page(core, size, tag):
    """Remove one translation from both levels."""
    home = core.l1_home[size]
    if home == 0:
        drop(core.l1_tlb0, set_of(core.l1_tlb0, core.l1_fold[0], tag), tag)
    elif home == 1:
        drop(core.l1_tlb1, set_of(core.l1_tlb1, core.l1_fold[1], tag), tag)
    elif home == 2:
        drop(core.l1_tlb2, set_of(core.l1_tlb2, core.l1_fold[2], tag), tag)
    home = core.l2_home[size]
    if home == 0:
        drop(core.l2_tlb0, set_of(core.l2_tlb0, core.l2_fold[0], tag), tag)
    elif home == 1:
        drop(core.l2_tlb1, set_of(core.l2_tlb1, core.l2_fold[1], tag), tag)
    elif home == 2:
        drop(core.l2_tlb2, set_of(core.l2_tlb2, core.l2_fold[2], tag), tag)
