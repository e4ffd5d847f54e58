"""A number of accesses, written as such or as a share of all: ``1000000`` or ``"10%"``."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from vmsim.base.errors import InputError
from vmsim.base.units import format_decimal
from vmsim.scenario.types import MAX_ACCESSES

__all__ = ["parse_share", "share_of", "share_schema"]

_PERCENT: Final = re.compile(r"([0-9]{1,2}(?:\.[0-9]{1,9})?) *%")


def parse_share(value: object, *, what: str, expected: str) -> str | int:
    """Return a number of accesses, 0 or more, or a share below 100 % as text without needless digits.

    Raises
    ------
    InputError
        It is neither; `what` is the name of what was to be read, `expected` what could have been written.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ACCESSES:
        return value or "0%"
    match = _PERCENT.fullmatch(value.strip(" ")) if isinstance(value, str) else None
    if match is None:
        raise InputError(f"{value!r} is not {what}; {expected}")
    return f"{format_decimal(Fraction(match[1]))}%"


def share_of(share: str | int, accesses: int) -> int:
    """Return how many of `accesses` a share is, exactly and rounded down, or a number of them."""
    if isinstance(share, int):
        return min(share, accesses)
    return int(Fraction(share.removesuffix("%")) / 100 * accesses)


def share_schema(description: str, *, minimum: int) -> dict[str, object]:
    """Return the JSON schema of such a value."""
    return {
        "anyOf": [
            {"type": "string", "pattern": r"^ *[0-9]{1,2}(\.[0-9]+)? *% *$"},
            {"type": "integer", "minimum": minimum, "maximum": MAX_ACCESSES},
        ],
        "description": description,
        "examples": ["10%", 1000000],
    }
