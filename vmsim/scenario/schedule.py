"""Sizes that a host asks a VM's kernel for over time, as tables of a scenario say them."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from vmsim.base.errors import InputError
from vmsim.base.units import Duration, format_size, parse_duration, parse_size

__all__ = ["Schedule", "SizeOrNone", "ascending"]

SizeOrNone = Annotated[
    int,
    BeforeValidator(parse_size),
    PlainSerializer(format_size, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^ *[0-9]+(\.[0-9]+)? *([KMGT]i?B|kB|B)? *$"},
                {"type": "integer", "minimum": 0},
            ],
            "description": "Bytes, 0 for none: a size with its unit, or a whole number of bytes.",
            "examples": ["512MiB"],
        }
    ),
]


def _steps(value: object) -> tuple[tuple[Duration, int], ...]:
    """Return the rows of a schedule."""
    if not isinstance(value, list | tuple):
        raise InputError('expected rows of a time and a size, such as [["10ms", "1GiB"], ["1s", 0]]')
    found: list[tuple[Duration, int]] = []
    for row in value:
        if not isinstance(row, list | tuple) or len(row) != 2:
            raise InputError(f'found {row!r} in a schedule; expected a time and a size, such as ["10ms", "1GiB"]')
        found.append((parse_duration(row[0]), parse_size(row[1])))
    return tuple(found)


def _written(steps: tuple[tuple[Duration, int], ...]) -> list[list[str]]:
    return [[str(time), format_size(size)] for time, size in steps]


Schedule = Annotated[
    tuple[tuple[Duration, int], ...],
    BeforeValidator(_steps),
    PlainSerializer(_written),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": ["string", "integer"]}},
            "description": "Other sizes that the host asks for later: rows of the time since the VM's start, and size.",
            "examples": [[["10ms", "1GiB"], ["1s", 0]]],
            "default": [],
        }
    ),
]


def ascending(schedule: tuple[tuple[Duration, int], ...]) -> bool:
    """Return whether each time of a schedule is after the one before."""
    cycles = [time.cycles(10**9) for time, _ in schedule]
    return all(one < other for one, other in pairwise(cycles))
