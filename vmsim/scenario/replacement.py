"""What arrays and caches replace, as CPU files say it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from vmsim.base.errors import InputError, nearest
from vmsim.scenario.problems import Problem

__all__ = ["NAMES", "Replacement", "leaders_of", "unfit"]

NAMES: Final = ("lru", "fifo", "random", "plru", "lru-plru4", "mru-plru4", "nru", "mru", "mru_n", "QLRU_H11_M1_R0_U0")
_QLRU: Final = re.compile(r"QLRU_H([012])([01])_M[0-3]_R([012])_U([0-3])(_UMO)?")
_MOST_WAYS: Final = 64
_LEAVE_ONE_OF_AGE_3: Final = "01"


def _known(name: str) -> str:
    if "/" in name:
        return _duel(name)
    found = _QLRU.fullmatch(name)
    if found and found[3] != "1" and found[4] not in _LEAVE_ONE_OF_AGE_3:
        raise InputError(
            f"{name}: R{found[3]} replaces a line of age 3, and U{found[4]} may leave none (nanoBench). "
            "Expected R1, U0 or U1."
        )
    if not found and name not in NAMES:
        raise InputError(
            f"{name!r} is not a policy. {nearest(name, NAMES)} A quad-age LRU is QLRU_Hxy_Mx_Rx_Ux or _UMO (nanoBench)."
        )
    return name


def _duel(name: str) -> str:
    """Check a name of two quad-age LRUs, of which a new line's age may be drawn."""
    names = name.split("/")
    if len(names) != 2 or not all(each.startswith("QLRU") for each in names):
        raise InputError(f"{name!r} is no duel. Expected two quad-age LRUs, such as {_INTEL}.")
    for each in names:
        _known(each.replace("_MR16", "_M"))
    return name


_INTEL: Final = "QLRU_H11_M1_R1_U2/QLRU_H11_MR161_R1_U2"


def leaders_of(text: str) -> list[int]:
    """Return the numbers that a text such as ``0,33,512-575`` lists.

    Raises
    ------
    InputError
        If it does not list numbers so.
    """
    numbers: list[int] = []
    for part in text.replace(" ", "").split(","):
        if not _RANGE.fullmatch(part):
            raise InputError(f"{part!r} in {text!r} is no set. Expected numbers and ranges, such as 0,33,512-575.")
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


_RANGE: Final = re.compile(r"\d{1,7}(-\d{1,7})?")


Replacement = Annotated[
    str,
    AfterValidator(_known),
    Field(
        default="lru",
        description="What is replaced: lru, fifo, random, plru (a tree), lru-plru4 and mru-plru4 (trees of four ways), "
        "nru, mru, mru_n, or a quad-age LRU as nanoBench writes it, such as QLRU_H11_M1_R0_U0; of an LLC two of those, "
        f"such as {_INTEL}, which duel.",
    ),
]


def unfit(name: str, ways: int, *, duels: bool = False) -> Iterator[Problem]:
    """Yield what is wrong with a policy for so many ways, where sets may duel or not."""
    path = ("replacement",)
    if "/" in name and not duels:
        yield Problem(path, f"found {name}, expected one policy: the sets of the LLC alone duel")
    if name == "plru" and ways & (ways - 1):
        yield Problem(path, f"a tree over {ways} ways: the ways must be a power of two")
    if name in ("lru-plru4", "mru-plru4") and ways % 4:
        yield Problem(path, f"trees of 4 ways over {ways}: the ways must be a multiple of 4")
    if name != "lru" and ways > _MOST_WAYS:
        yield Problem(path, f"found {name} with {ways} ways, expected lru, or at most {_MOST_WAYS} ways")
