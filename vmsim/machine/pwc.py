"""Page walk caches in the two styles known, and the nested TLB.

Prefix style (Intel, SDM vol. 3A §5.10.3): one cache per table level, tagged by the address bits translated so far;
its value is the table to go on from and the rights gathered, so a walk starts at the deepest prefix cached.
Entry style (AMD; Bhargava et al., ASPLOS 2008, §4): one cache of entries, tagged by the entry's own address; the walk
takes every step, but a step that hits costs no memory reference.
The nested TLB (ibid. §4.3) maps guest frames to host frames and skips the nested walk.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from vmsim.jit import leaf
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.sets import MISS, fill, lookup

__all__ = ["GUEST", "NESTED", "PwcStyle", "keep", "start"]

GUEST = 0  # the dimension whose tables translate gva
NESTED = 1  # the dimension whose tables translate gpa


class PwcStyle(IntEnum):
    """How page walk caches are tagged."""

    NONE = 0
    PREFIX = 1
    ENTRY = 2


@leaf
def start(pde, pdpte, pml4e, pml5e, counts, asid, levels, root, address, width):
    """Return (level, table) to begin a walk with: below the longest prefix cached, else the root.

    A cache that a core lacks has no sets, which the compiler knows. PDPTEs of PAE tables are in none of them.
    """
    if len(pde) > 0:
        prefix = address >> (PAGE_SHIFT + width)
        table = lookup(pde[np.uint64(prefix & (len(pde) - 1))], asid | prefix)
        counts[2, np.uint64(table != MISS)] += 1
        if table != MISS:
            return 1, table
    if len(pdpte) > 0 and levels > 3:
        prefix = address >> 30
        table = lookup(pdpte[np.uint64(prefix & (len(pdpte) - 1))], asid | prefix)
        counts[3, np.uint64(table != MISS)] += 1
        if table != MISS:
            return 2, table
    if len(pml4e) > 0 and levels > 3:
        prefix = address >> 39
        table = lookup(pml4e[np.uint64(prefix & (len(pml4e) - 1))], asid | prefix)
        counts[4, np.uint64(table != MISS)] += 1
        if table != MISS:
            return 3, table
    if len(pml5e) > 0 and levels == 5:
        prefix = address >> 48
        table = lookup(pml5e[np.uint64(prefix & (len(pml5e) - 1))], asid | prefix)
        counts[5, np.uint64(table != MISS)] += 1
        if table != MISS:
            return 4, table
    return levels, root


@leaf
def keep(pde, pdpte, pml4e, pml5e, asid, address, level, table, width):
    """Remember the table that the entry of `level` points to."""
    prefix = address >> (PAGE_SHIFT - width + width * level)
    if level == 2:
        if len(pde) > 0:
            fill(pde[np.uint64(prefix & (len(pde) - 1))], asid | prefix, table)
    elif level == 3:
        if len(pdpte) > 0:
            fill(pdpte[np.uint64(prefix & (len(pdpte) - 1))], asid | prefix, table)
    elif level == 4:
        if len(pml4e) > 0:
            fill(pml4e[np.uint64(prefix & (len(pml4e) - 1))], asid | prefix, table)
    elif len(pml5e) > 0:
        fill(pml5e[np.uint64(prefix & (len(pml5e) - 1))], asid | prefix, table)
