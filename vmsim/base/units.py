"""Sizes, times, frequencies and addresses: text to exact integers and back.

Nothing here uses floating point. Decimals are read as fractions, so that ``"0.3us"`` at 3 GHz is 900 cycles
and never 899.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from vmsim.base.errors import InputError

__all__ = [
    "MAX_CYCLES",
    "MAX_FREQUENCY",
    "MAX_SECONDS",
    "MAX_SIZE",
    "PAGE",
    "PAGE_BYTES",
    "PAGE_ORDER",
    "PAGE_SHIFT",
    "PAGE_SIZES",
    "Duration",
    "PageSize",
    "TlbPage",
    "format_address",
    "format_decimal",
    "format_frequency",
    "format_size",
    "is_canonical",
    "parse_address",
    "parse_duration",
    "parse_frequency",
    "parse_page_size",
    "parse_size",
    "seconds",
    "shown",
]

PAGE_SHIFT: Final = 12
PAGE: Final = 1 << PAGE_SHIFT

TlbPage = Literal["4K", "2M", "1G"]
PAGE_SIZES: Final[tuple[TlbPage, ...]] = ("4K", "2M", "1G")
"""Of the pages that TLBs keep."""
PageSize = Literal["4K", "2M", "4M", "1G"]
PAGE_ORDER: Final[Mapping[PageSize, int]] = {"4K": 0, "2M": 9, "4M": 10, "1G": 18}
"""Buddy-allocator order of each page size: a page of order n is 2**n pages of 4 KiB."""
PAGE_BYTES: Final[Mapping[PageSize, int]] = {size: PAGE << order for size, order in PAGE_ORDER.items()}

_BINARY: Final = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_DECIMAL: Final = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3, "KB": 10**3}
_SECONDS: Final = {
    "s": Fraction(1),
    "ms": Fraction(1, 10**3),
    "us": Fraction(1, 10**6),
    "ns": Fraction(1, 10**9),
}
_HERTZ: Final = {"GHz": 10**9, "MHz": 10**6, "kHz": 10**3, "Hz": 1}

# Lengths are bounded so that no text, however long, makes a number that is slow to handle.
_QUANTITY: Final = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?) *([A-Za-zµ]{1,8})")
_WHOLE: Final = re.compile(r"[0-9]{1,30}")
_ADDRESS: Final = re.compile(r"0[xX][0-9a-fA-F]{1,4}(?:_?[0-9a-fA-F]{1,4}){0,15}|[0-9]{1,20}")

MAX_SIZE: Final = 1 << 56
"""Largest size, in bytes: what a program can address with tables of 5 levels."""
MAX_SECONDS: Final = 1_000_000
MAX_CYCLES: Final = 10**15
"""Largest duration in cycles."""
MAX_FREQUENCY: Final = 10**11
"""Largest frequency: with it, `MAX_SECONDS` are 10**17 cycles, and simulated time stays far below 2**63."""

_SIZE_HELP: Final = 'write for example "2GiB", "512MiB", "4KiB", "2GB" (decimal), or a whole number of bytes'
_DURATION_HELP: Final = 'write for example "50us", "1ms", "3s", "200cycles"'
_FREQUENCY_HELP: Final = 'write for example "2.1GHz", "800MHz", or a whole number of hertz'
_PAGE_HELP: Final = 'write "4K", "2M", "1G", or "4M" in 32-bit paging'
_ADDRESS_HELP: Final = 'write for example "0x10_0000_0000", or a whole number'


def parse_size(text: object) -> int:
    """Return the bytes of a size such as ``"2GiB"``, ``"4KiB"``, ``"2GB"`` (decimal) or ``4096``.

    Raises
    ------
    InputError
        Not a size, negative, not a whole number of bytes, or more than `MAX_SIZE`.
    """
    size = _whole(text)
    if size is None:
        amount = _scaled(text, _BINARY | _DECIMAL)
        if amount is None or amount.denominator != 1:
            raise InputError(f"{shown(text)} is not a size; {_SIZE_HELP}")
        size = amount.numerator
    if size > MAX_SIZE:
        raise InputError(f"{shown(text)} is more than the largest size, {format_size(MAX_SIZE)}")
    return size


def format_size(size: int) -> str:
    """Return `size` bytes in the largest binary unit that divides it: 2147483648 is ``"2GiB"``."""
    unit, scale = next(((u, s) for u, s in _BINARY.items() if size >= s and size % s == 0), ("B", 1))
    return f"{size // scale}{unit}"


def parse_page_size(text: object) -> PageSize:
    """Return the page size ``"4K"``, ``"2M"``, ``"4M"`` or ``"1G"`` of its name, or of its size: ``"4KiB"`` or 4096.

    Raises
    ------
    InputError
        Not one of the four.
    """
    for name, size in PAGE_BYTES.items():
        if text == name or (not isinstance(text, bool) and text in (size, format_size(size))):
            return name
    raise InputError(f"{shown(text)} is not a page size; {_PAGE_HELP}")


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time, either in seconds or in cycles of the host's TSC.

    Seconds become cycles only when a frequency is known: a scenario keeps its meaning when its CPU changes.

    Attributes
    ----------
    amount : Fraction
        Exact number of `unit`, not negative.
    unit : {"s", "cycles"}
        Seconds, or cycles (then `amount` is whole).
    """

    amount: Fraction
    unit: Literal["s", "cycles"] = "s"

    def cycles(self, frequency: int) -> int:
        """Return the nearest whole number of cycles at `frequency` hertz (ties to even)."""
        return round(self.amount * frequency) if self.unit == "s" else self.amount.numerator

    def __str__(self) -> str:
        if self.unit == "cycles":
            return f"{self.amount}cycles"
        if not self.amount:
            return "0s"
        for unit, scale in _SECONDS.items():
            if (self.amount / scale).denominator == 1:
                return f"{self.amount / scale}{unit}"
        return f"{format_decimal(self.amount / _SECONDS['ns'])}ns"


def parse_duration(text: object) -> Duration:
    """Return the duration of ``"50us"``, ``"1.5ms"``, ``"3s"``, ``"20ns"`` or ``"200cycles"``.

    A bare number is refused, except 0: seconds and cycles are too far apart to guess.

    Raises
    ------
    InputError
        Not a duration, not a whole number of cycles, or more than `MAX_SECONDS` or `MAX_CYCLES`.
    """
    if isinstance(text, Duration):
        return text
    if _whole(text) == 0:
        return Duration(Fraction(0))
    cycles = _scaled(text, {"cycles": 1, "cycle": 1})
    if cycles is not None and cycles.denominator == 1:
        if cycles > MAX_CYCLES:
            raise InputError(f"{shown(text)} is more than the longest duration, {MAX_CYCLES}cycles")
        return Duration(cycles, "cycles") if cycles else Duration(Fraction(0))
    amount = _scaled(text, _SECONDS | {"µs": _SECONDS["us"]})
    if amount is None:
        raise InputError(f"{shown(text)} is not a duration; {_DURATION_HELP}")
    if amount > MAX_SECONDS:
        raise InputError(f"{shown(text)} is more than the longest duration, {MAX_SECONDS}s")
    return Duration(amount)


def parse_frequency(text: object) -> int:
    """Return the hertz of ``"2.1GHz"``, ``"800MHz"`` or a whole number of hertz.

    Raises
    ------
    InputError
        Not a frequency, zero, not a whole number of hertz, or more than `MAX_FREQUENCY`.
    """
    hertz = _whole(text)
    if hertz is None:
        amount = _scaled(text, _HERTZ)
        hertz = amount.numerator if amount is not None and amount.denominator == 1 else 0
    if not hertz:
        raise InputError(f"{shown(text)} is not a frequency; {_FREQUENCY_HELP}")
    if hertz > MAX_FREQUENCY:
        raise InputError(f"{shown(text)} is more than the highest frequency, {format_frequency(MAX_FREQUENCY)}")
    return hertz


def format_frequency(frequency: int) -> str:
    """Return `frequency` hertz in the largest unit not above it: 2100000000 is ``"2.1GHz"``."""
    unit, scale = next(((u, s) for u, s in _HERTZ.items() if frequency >= s), ("Hz", 1))
    return f"{format_decimal(Fraction(frequency, scale))}{unit}"


def seconds(cycles: int, frequency: int) -> Fraction:
    """Return the exact seconds that `cycles` take at `frequency` hertz."""
    return Fraction(cycles, frequency)


def parse_address(text: object) -> int:
    """Return the address of ``"0x10_0000_0000"`` or of a whole number.

    Raises
    ------
    InputError
        Not an address, or more than 64 bits.
    """
    address = text if isinstance(text, int) and not isinstance(text, bool) else None
    if isinstance(text, str) and _ADDRESS.fullmatch(text.strip(" ")):
        digits = text.strip(" ")
        address = int(digits, 0) if digits.lower().startswith("0x") else int(digits)
    if address is None or not 0 <= address < 1 << 64:
        raise InputError(f"{shown(text)} is not an address; {_ADDRESS_HELP}")
    return address


def format_address(address: int) -> str:
    """Return `address` in hexadecimal with a mark every four digits: ``"0x10_0000_0000"``."""
    return f"{address:#_x}"


def is_canonical(address: int, bits: int = 48) -> bool:
    """Tell whether bits 63 down to ``bits - 1`` of a 64-bit address are all equal.

    Parameters
    ----------
    address : int
        Linear address, as an unsigned or as a signed 64-bit number.
    bits : int, optional
        Linear-address width: 48 with 4 levels of tables, 57 with 5 (Intel SDM vol. 1, 3.3.7.1).
    """
    half = 1 << (bits - 1)
    return -half <= address < half or (1 << 64) - half <= address < 1 << 64


def _whole(text: object) -> int | None:
    """Return a non-negative int, given as such or as digits; None for anything else."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    if isinstance(text, str) and _WHOLE.fullmatch(text.strip(" ")):
        return int(text)
    return None


def _scaled(text: object, units: Mapping[str, int | Fraction]) -> Fraction | None:
    """Return the exact value of ``"<decimal><unit>"``, or None if that is not what `text` is."""
    match = _QUANTITY.fullmatch(text.strip(" ")) if isinstance(text, str) else None
    if match is None or match[2] not in units:
        return None
    return Fraction(match[1]) * units[match[2]]


def format_decimal(value: Fraction) -> str:
    """Return the finite decimal expansion of a fraction whose denominator divides a power of ten.

    No digit more than it takes: 1/2 is ``"0.5"``, 10/1 is ``"10"``.
    """
    digits = 0
    while (value * 10**digits).denominator != 1:
        digits += 1
    if not digits:
        return str(value.numerator)
    whole = str((value * 10**digits).numerator).zfill(digits + 1)
    return f"{whole[:-digits]}.{whole[-digits:]}"


def shown(value: object) -> str:
    """Return a value as a message shows it: cut where it is long."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:57]!r}..."
    if isinstance(value, dict | list | tuple):
        return "a table" if isinstance(value, dict) else "an array"
    return repr(value)
