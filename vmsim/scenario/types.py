"""The base of every scenario table, and the field types they share."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, Strict, WithJsonSchema

from vmsim.base import units
from vmsim.base.errors import InputError

__all__ = [
    "MAX_ACCESSES",
    "MAX_CORES",
    "MAX_COST",
    "MAX_ENTRIES",
    "MAX_INT",
    "MAX_PAGES",
    "MAX_PROCESSES",
    "MAX_ROUNDS",
    "MAX_THREADS",
    "MAX_VCPUS",
    "MAX_VMS",
    "MAX_WAYS",
    "Accesses",
    "Address",
    "Cores",
    "Count",
    "Cycles",
    "DurationField",
    "Entries",
    "Flag",
    "Fraction01",
    "Frequency",
    "Model",
    "PageSizeField",
    "Pages",
    "Positive",
    "Processes",
    "Rounds",
    "Size",
    "SomePages",
    "Threads",
    "Vms",
    "Ways",
    "Work",
]

MAX_INT: Final = 2**63 - 1
"""Largest integer of TOML 1.0."""


class Model(BaseModel):
    """A table: immutable, and every key it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=False)


def _positive_size(value: object) -> int:
    size = units.parse_size(value)
    if size == 0:
        raise InputError(f"{value!r} is a zero size; it must be at least one byte")
    return size


def _schema(pattern: str, description: str, example: str, least: int | None, most: int | None) -> WithJsonSchema:
    """Return the schema of a value that is text with a unit or, where `least` is given, a whole number."""
    text: dict[str, Any] = {"type": "string", "pattern": pattern}
    number: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    choices = [text] if least is None else [text, number]
    return WithJsonSchema({"anyOf": choices, "description": description, "examples": [example]})


MAX_CORES: Final = 1024
MAX_VMS: Final = 4094
"""Each vCPU has an asid of its own; 0 is the host's."""
MAX_VCPUS: Final = 256
"""Of one VM."""
MAX_COST: Final = 10**9
"""Largest cost of one thing, in cycles: so that sums of as many as can be simulated stay below 2**63."""
MAX_ACCESSES: Final = 10**12
"""Most accesses of one workload: two days of simulation at five million a second."""
MAX_ROUNDS: Final = 10**9
"""Most repetitions of a part of a workload, and most accesses in one."""
MAX_PAGES: Final = 1 << 30
"""Pages of 4 KiB in 4 TiB, the most memory a host can have."""
MAX_ENTRIES: Final = 1 << 20
"""Most entries of a hardware array."""
MAX_WAYS: Final = 1 << 12
MAX_PROCESSES: Final = 1 << 22
MAX_THREADS: Final = 1 << 12
"""Linux's PID_MAX_LIMIT (include/linux/threads.h)."""

Count = Annotated[int, Strict(), Field(ge=0, le=MAX_INT)]
Positive = Annotated[int, Strict(), Field(ge=1, le=MAX_INT)]
Cores = Annotated[int, Strict(), Field(ge=1, le=MAX_CORES)]
Vms = Annotated[int, Strict(), Field(ge=0, le=MAX_VMS)]
Cycles = Annotated[int, Strict(), Field(ge=0, le=MAX_COST)]
Accesses = Annotated[int, Strict(), Field(ge=1, le=MAX_ACCESSES)]
Rounds = Annotated[int, Strict(), Field(ge=1, le=MAX_ROUNDS)]
Work = Annotated[int, Strict(), Field(ge=0, le=MAX_ROUNDS)]
Pages = Annotated[int, Strict(), Field(ge=0, le=MAX_PAGES)]
SomePages = Annotated[int, Strict(), Field(ge=1, le=MAX_PAGES)]
Entries = Annotated[int, Strict(), Field(ge=0, le=MAX_ENTRIES)]
Ways = Annotated[int, Strict(), Field(ge=0, le=MAX_WAYS)]
Processes = Annotated[int, Strict(), Field(ge=1, le=MAX_PROCESSES)]
Threads = Annotated[int, Strict(), Field(ge=1, le=MAX_THREADS)]
Flag = Annotated[bool, Strict()]
Fraction01 = Annotated[float, Field(ge=0, le=1, strict=True)]

Size = Annotated[
    int,
    BeforeValidator(_positive_size),
    PlainSerializer(units.format_size, return_type=str),
    _schema(
        r"^ *[0-9]+(\.[0-9]+)? *([KMGT]i?B|kB|B)? *$",
        "Bytes: a size with its unit, or a whole number of bytes, at most 64PiB (65536TiB).",
        "2GiB",
        1,
        units.MAX_SIZE,
    ),
]
PageSizeField = Annotated[units.PageSize, BeforeValidator(units.parse_page_size)]
DurationField = Annotated[
    units.Duration,
    BeforeValidator(units.parse_duration),
    PlainSerializer(str, return_type=str),
    _schema(
        r"^ *([0-9]+(\.[0-9]+)? *(s|ms|us|µs|ns)|[0-9]+ *cycles?|0) *$",
        "A length of time with its unit, at most 1000000s, or cycles of the host's TSC, at most 10**15.",
        "50us",
        0,
        0,
    ),
]
Frequency = Annotated[
    int,
    BeforeValidator(units.parse_frequency),
    PlainSerializer(units.format_frequency, return_type=str),
    _schema(
        r"^ *[0-9]+(\.[0-9]+)? *[GMk]?Hz *$",
        "Hertz: with a unit, or a whole number, at most 100GHz.",
        "2.1GHz",
        1,
        units.MAX_FREQUENCY,
    ),
]
Address = Annotated[
    int,
    BeforeValidator(units.parse_address),
    PlainSerializer(units.format_address, return_type=str),
    _schema(
        r"^ *(0[xX][0-9a-fA-F_]+|[0-9]+) *$",
        "A guest-virtual address: hexadecimal text, or a whole number.",
        "0x10_0000_0000",
        0,
        (1 << 64) - 1,
    ),
]
