"""The names of the policies, and their numbers."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

__all__ = ["KIND_BITS", "NAMES", "Policy", "Use", "policy_of"]

KIND_BITS: Final = 4


class Policy(IntEnum):
    """The kinds: the low bits of a policy's number."""

    LRU = 0  # exact, by moving tags
    LRU_BY_WAY = 1  # exact as well, but tags stay: for a cache that is shared out by ways
    FIFO = 2
    RANDOM = 3
    PLRU = 4
    LRU_PLRU4 = 5
    MRU_PLRU4 = 6
    NRU = 7
    MRU = 8
    MRU_N = 9
    QLRU = 10


class Use(IntEnum):
    """How a way was used."""

    HIT = 0
    REPLACED = 1  # by another tag
    FILLED = 2  # it was empty


NAMES: Final = {
    "lru": Policy.LRU,
    "fifo": Policy.FIFO,
    "random": Policy.RANDOM,
    "plru": Policy.PLRU,
    "lru-plru4": Policy.LRU_PLRU4,
    "mru-plru4": Policy.MRU_PLRU4,
    "nru": Policy.NRU,
    "mru": Policy.MRU,
    "mru_n": Policy.MRU_N,
}
"""Kinds without parameters."""

_QLRU: Final = re.compile(r"qlru_h([0-2])([01])_m([0-3])_r([0-2])_u([0-3])(_umo)?", re.IGNORECASE)


def policy_of(name: str, *, by_way: bool = False) -> int:
    """Return the number of the policy of a name, as CPU files have it.

    Parameters
    ----------
    name : str
        One of `NAMES`, or a quad-age LRU as nanoBench writes it, such as ``QLRU_H11_M1_R0_U0``.
    by_way : bool, optional
        Tags are to stay in their ways, with exact LRU too.
    """
    if found := _QLRU.fullmatch(name):
        hit3, hit2, miss, place, update = (int(digit) for digit in found.groups()[:5])
        parameters = hit3 | hit2 << 2 | miss << 3 | place << 5 | update << 7 | (found[6] is not None) << 9
        return Policy.QLRU | parameters << KIND_BITS
    policy = NAMES[name.lower()]
    return int(Policy.LRU_BY_WAY if by_way and policy == Policy.LRU else policy)
