"""The names of the policies, and their numbers."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

__all__ = ["KIND_BITS", "NAMES", "QLRU_BITS", "RARELY", "Policy", "Use", "policy_of"]

KIND_BITS: Final = 4
QLRU_BITS: Final = 11  # of the parameters of a quad-age LRU
RARELY: Final = 1 << 10  # of those: a line comes in at that age once in 16 times, and at age 3 else


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
    DUEL = 11  # of two QLRUs


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

_QLRU: Final = re.compile(r"qlru_h([0-2])([01])_m(r16)?([0-3])_r([0-2])_u([0-3])(_umo)?", re.IGNORECASE)


def policy_of(name: str, *, by_way: bool = False) -> int:
    """Return the number of the policy of a name, as CPU files have it.

    Parameters
    ----------
    name : str
        One of `NAMES`, a quad-age LRU as nanoBench writes it, such as ``QLRU_H11_M1_R0_U0``, or two of those with a
        ``/`` between them, which duel.
    by_way : bool, optional
        Tags are to stay in their ways, with exact LRU too.
    """
    if "/" in name:
        first, second = (_parameters(each) for each in name.split("/"))
        return Policy.DUEL | first << KIND_BITS | second << KIND_BITS + QLRU_BITS
    if _QLRU.fullmatch(name):
        return Policy.QLRU | _parameters(name) << KIND_BITS
    policy = NAMES[name.lower()]
    return int(Policy.LRU_BY_WAY if by_way and policy == Policy.LRU else policy)


def _parameters(name: str) -> int:
    found = _QLRU.fullmatch(name)
    assert found, name
    hit3, hit2, miss, place, update = (int(found[group]) for group in (1, 2, 4, 5, 6))
    parameters = hit3 | hit2 << 2 | miss << 3 | place << 5 | update << 7 | (found[7] is not None) << 9
    return parameters | (RARELY if found[3] else 0)
