"""The weights of Zipf's law, with the same bits on every platform.

The C library's `pow` differs by a last bit between platforms, which would move a threshold and so a stream. Here
only operations that IEEE 754 rounds exactly are used, one numpy call each, so nothing can be fused or reordered.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["powers", "zipf_cumulative"]

Floats = NDArray[np.float64]

# ln 2 in two parts: n * _LN2_HIGH is exact for |n| < 2**11.
_LN2_HIGH = float.fromhex("0x1.62e42feep-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")

_BLOCK = 1 << 20  # ranks at a time: temporaries stay small beside the tables


def _logarithm(values: Floats) -> Floats:
    """Return natural logarithms: ln(m 2**e) = e ln 2 + 2 artanh((m - 1) / (m + 1))."""
    mantissa, exponent = np.frexp(values)
    small = mantissa < 0.7071067811865476
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    power = exponent.astype(np.float64) - small
    t = (mantissa - 1.0) / (mantissa + 1.0)
    square = t * t
    series = np.zeros_like(t)
    for odd in range(23, 0, -2):
        series = series * square + 1.0 / odd
    return power * _LN2_HIGH + (power * _LN2_LOW + 2.0 * t * series)


def _exponential(values: Floats) -> Floats:
    """Return e**values: 2**n times the Taylor series of what remains."""
    n = np.rint(values / (_LN2_HIGH + _LN2_LOW))
    rest = (values - n * _LN2_HIGH) - n * _LN2_LOW
    series = np.ones_like(rest)
    for k in range(15, 0, -1):
        series = series * rest / k + 1.0
    return np.ldexp(series, n.astype(np.int32))


def powers(first: int, count: int, exponent: float) -> Floats:
    """Return k**-exponent for k = first … first + count - 1, float64[count], to about 1e-15."""
    return _exponential(-exponent * _logarithm(np.arange(first, first + count, dtype=np.float64)))


def zipf_cumulative(count: int, exponent: float) -> NDArray[np.uint64]:
    """Return running sums of integer weights proportional to k**-exponent, uint64[count], ending below 2**62.

    Weights are at least 1, so that every rank can be drawn.
    """
    weights = np.empty(count, np.float64)
    total = count  # in units of 2**-30, rounded up
    for first in range(0, count, _BLOCK):
        block = powers(first + 1, min(_BLOCK, count - first), exponent)
        weights[first : first + len(block)] = block
        total += int((block * 2.0**30).astype(np.int64).sum())
    weights *= 2.0 ** (61 - (total >> 30).bit_length())
    scaled = weights.astype(np.uint64)
    np.maximum(scaled, np.uint64(1), out=scaled)
    return np.cumsum(scaled, out=scaled)
