"""Page walk caches in the two styles known, and the nested TLB.

Prefix style (Intel, SDM vol. 3A §5.10.3): one cache per table level, tagged by the address bits translated so far;
its value is the table to go on from and the rights gathered, so a walk starts at the deepest prefix cached.
Entry style (AMD; Bhargava et al., ASPLOS 2008, §4): one cache of entries, tagged by the entry's own address; the walk
takes every step, but a step that hits costs no memory reference.
The nested TLB (ibid. §4.3) maps guest frames to host frames and skips the nested walk.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["GUEST", "NESTED", "PwcStyle"]

GUEST = 0  # the dimension whose tables translate gva
NESTED = 1  # the dimension whose tables translate gpa


class PwcStyle(IntEnum):
    """How page walk caches are tagged."""

    NONE = 0
    PREFIX = 1
    ENTRY = 2
