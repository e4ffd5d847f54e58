"""How long something takes, as a scenario says it: ``"constant 80us"``, ``"exponential 1ms"``, ``"file disk.csv"``."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from vmsim.base.errors import InputError, nearest
from vmsim.base.units import parse_duration, shown

__all__ = ["FORMS", "LONGEST", "Service", "ServiceField", "parse_service"]

FORMS: Final = {
    "constant": "constant TIME",
    "exponential": "exponential MEAN",
    "uniform": "uniform LEAST MOST",
    "lognormal": "lognormal MEAN SIGMA",
    "file": "file PATH",
}
"""By kind, how it is written."""

LONGEST: Final = parse_duration("1000s")
"""The longest time that a page may take a device: sums of very many stay below 2**63 cycles."""
_NANOSECONDS = 10**9


class Service(NamedTuple):
    """A distribution of times.

    Attributes
    ----------
    kind : str
        A key of FORMS.
    first : float
        Nanoseconds: the time, its mean or its least value.
    second : float
        Nanoseconds, the greatest value of a uniform one; of a lognormal one the standard deviation of the logarithm.
    path : str
        Of a file: a CSV with the columns from_us, to_us and count, relative to the scenario's folder.
    text : str
        As it was written.
    """

    kind: str
    first: float = 0.0
    second: float = 0.0
    path: str = ""
    text: str = ""

    @property
    def mean(self) -> float:
        """Nanoseconds on average; of a file it is not known here."""
        return (self.first + self.second) / 2 if self.kind == "uniform" else self.first


def parse_service(value: object) -> Service:
    """Return the distribution that a text says.

    Raises
    ------
    InputError
        It says none.

    Examples
    --------
    >>> parse_service("uniform 1us 3us").mean
    2000.0
    """
    if isinstance(value, Service):
        return value
    words = [word for word in value.split(" ") if word] if isinstance(value, str) else []
    forms = ", ".join(repr(form) for form in FORMS.values())
    if not words:
        raise InputError(f"{shown(value)} is no distribution of times; expected {forms}")
    kind = words[0]
    if kind not in FORMS:
        raise InputError(f"{shown(kind)} is no kind of distribution; {nearest(kind, FORMS)} Expected {forms}")
    if kind == "file" and len(words) > 1:  # a path may have blanks in it
        path = str(value).strip(" ").removeprefix(kind).strip(" ")
        return Service(kind, path=path, text=f"{kind} {path}")
    if len(words) != len(FORMS[kind].split()):
        raise InputError(f"{shown(value)}: expected {FORMS[kind]!r}")
    text = " ".join(words)
    first = _nanoseconds(words[1])
    if kind == "uniform":
        second = _nanoseconds(words[2])
        if second < first:
            raise InputError(f"{shown(value)}: the greatest time is less than the least")
        return Service(kind, first, second, text=text)
    if kind == "lognormal":
        try:
            sigma = float(words[2])
        except ValueError:
            sigma = math.nan
        if not 0 <= sigma <= 10:
            text = "is no standard deviation of a logarithm; expected a number from 0 to 10"
            raise InputError(f"{shown(words[2])} {text}")
        return Service(kind, first, sigma, text=text)
    return Service(kind, first, text=text)


def _nanoseconds(text: str) -> float:
    duration = parse_duration(text)
    if duration.unit == "cycles":
        raise InputError(f"{shown(text)}: a device knows no cycles; expected a time such as 80us")
    if duration.amount > LONGEST.amount:
        raise InputError(f"{shown(text)} is more than the longest time that a page may take a device, {LONGEST}")
    return float(duration.cycles(_NANOSECONDS))


def _checked(value: object) -> str:
    """Return the text of a distribution; the empty one stands for the device's own."""
    return "" if value == "" else parse_service(value).text


_SCHEMA: Final[dict[str, Any]] = {
    "type": "string",
    "description": "A distribution of times: " + ", ".join(FORMS.values()) + "; empty: the device's own.",
    "examples": ["exponential 100us"],
}
ServiceField = Annotated[str, BeforeValidator(_checked), PlainSerializer(str, return_type=str), WithJsonSchema(_SCHEMA)]
