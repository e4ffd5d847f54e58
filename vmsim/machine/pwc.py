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
from vmsim.machine.sets import fill, lookup

__all__ = ["GUEST", "NESTED", "PwcStyle", "keep_prefix", "lookup_prefix"]

GUEST = 0  # the dimension whose tables translate gva
NESTED = 1  # the dimension whose tables translate gpa


class PwcStyle(IntEnum):
    """How page walk caches are tagged."""

    NONE = 0
    PREFIX = 1
    ENTRY = 2


@leaf
def prefix_set(sets, prefix):
    """Return the set of a prefix: its low bits."""
    return np.uint64(prefix & (len(sets) - 1))


@leaf
def lookup_prefix(sets, asid, address, shift):
    """Return the table (hpa, with rights in its low bits) that translates below `address >> shift`, or MISS."""
    prefix = address >> shift
    return lookup(sets, prefix_set(sets, prefix), asid | prefix)


@leaf
def keep_prefix(sets, asid, address, shift, table):
    """Remember the table that translates below `address >> shift`."""
    prefix = address >> shift
    fill(sets, prefix_set(sets, prefix), asid | prefix, table)
