"""A VM's share of the last-level cache: the ways that its references may fill (Intel's CAT, AMD's L3 allocation)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from vmsim.base.errors import InputError
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.problems import Problem

__all__ = ["LlcWays", "mask_of", "ways_problems"]

_LIST: Final = re.compile(r"\d{1,2}(-\d{1,2})?(,\d{1,2}(-\d{1,2})?)*")


def mask_of(ways: str | None) -> int:
    """Return the mask of a list of ways such as ``"0-3,8"``; 0: none is given, all ways are its own."""
    mask = 0
    for part in ways.split(",") if ways else ():
        first, _, last = part.partition("-")
        for way in range(int(first), int(last or first) + 1):
            mask |= 1 << way
    return mask


def _checked(ways: str) -> str:
    if not _LIST.fullmatch(ways) or not mask_of(ways):
        raise InputError(
            f'{ways!r} is not a list of ways. Expected numbers and ranges, from 0 on, such as "0-3" or "0,2".'
        )
    return ways


LlcWays = Annotated[
    str,
    AfterValidator(_checked),
    Field(description='The ways of the LLC that it may fill, such as "0-3"; it hits in all. Default: all.'),
]


def ways_problems(ways: str | None, cpu: Cpu) -> Iterator[Problem]:
    """Yield what is wrong with a VM's ways on a CPU."""
    mask, path = mask_of(ways), ("llc_ways",)
    if mask >> cpu.cache.llc.ways:
        yield Problem(path, f"found {ways}; the LLC of {cpu.name} has ways 0 to {cpu.cache.llc.ways - 1}")
    lowest = mask & -mask
    if cpu.vendor == "intel" and mask and (mask + lowest) & mask:
        text = f"found {ways}; Intel's masks have no gaps (SDM vol. 3B, Cache Allocation Technology)"
        yield Problem(path, text)
