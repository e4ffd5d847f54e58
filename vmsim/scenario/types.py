"""The base of every scenario table, and the field types they share."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, Strict, WithJsonSchema

from vmsim import units
from vmsim.errors import InputError

__all__ = [
    "MAX_CORES",
    "MAX_INT",
    "MAX_VMS",
    "Address",
    "Cores",
    "Count",
    "DurationField",
    "Flag",
    "Fraction01",
    "Frequency",
    "Model",
    "PageSizeField",
    "Positive",
    "Size",
    "Vms",
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


def _schema(kind: str, pattern: str, description: str, example: str) -> WithJsonSchema:
    text = {"type": "string", "pattern": pattern}
    number: dict[str, Any] = {"type": "integer", "minimum": 1 if kind != "address" else 0}
    choices = [text] if kind == "duration" else [text, number]
    return WithJsonSchema({"anyOf": choices, "description": description, "examples": [example]})


MAX_CORES: Final = 1024
MAX_VMS: Final = 4094
"""Each VM has an asid of its own; 0 is the host's."""

Count = Annotated[int, Strict(), Field(ge=0, le=MAX_INT)]
Positive = Annotated[int, Strict(), Field(ge=1, le=MAX_INT)]
Cores = Annotated[int, Strict(), Field(ge=1, le=MAX_CORES)]
Vms = Annotated[int, Strict(), Field(ge=0, le=MAX_VMS)]
Flag = Annotated[bool, Strict()]
Fraction01 = Annotated[float, Field(ge=0, le=1, strict=True)]

Size = Annotated[
    int,
    BeforeValidator(_positive_size),
    PlainSerializer(units.format_size, return_type=str),
    _schema(
        "size",
        r"^\s*[0-9]+(\.[0-9]+)?\s*([KMGT]i?B|kB|B)?\s*$",
        "Bytes: a size with its unit, or a whole number of bytes.",
        "2GiB",
    ),
]
PageSizeField = Annotated[units.PageSize, BeforeValidator(units.parse_page_size)]
DurationField = Annotated[
    units.Duration,
    BeforeValidator(units.parse_duration),
    PlainSerializer(str, return_type=str),
    _schema(
        "duration",
        r"^\s*([0-9]+(\.[0-9]+)?\s*(s|ms|us|µs|ns)|[0-9]+\s*cycles?|0)\s*$",
        "A length of time with its unit, or cycles of the host's TSC.",
        "50us",
    ),
]
Frequency = Annotated[
    int,
    BeforeValidator(units.parse_frequency),
    PlainSerializer(units.format_frequency, return_type=str),
    _schema("frequency", r"^\s*[0-9]+(\.[0-9]+)?\s*[GMk]?Hz\s*$", "Hertz: with a unit, or a whole number.", "2.1GHz"),
]
Address = Annotated[
    int,
    BeforeValidator(units.parse_address),
    PlainSerializer(units.format_address, return_type=str),
    _schema(
        "address",
        r"^(0[xX][0-9a-fA-F_]+|[0-9]+)$",
        "A guest-virtual address: hexadecimal text, or a whole number.",
        "0x10_0000_0000",
    ),
]
