"""Where words of very long arrays have some bits, without a copy of the array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["places_of"]

_CHUNK = 1 << 20  # words at a time: an array has one for each page of a VM, of which most have never been used


def places_of(words: NDArray[np.int64], mask: int, value: int = 0) -> NDArray[np.int64]:
    """Return where words have a bit of `mask`, or with a `value` where they have just these of its bits; ascending."""
    found = []
    for start in range(0, len(words), _CHUNK):
        bits = words[start : start + _CHUNK] & mask
        found.append(start + np.flatnonzero(bits == value if value else bits))
    return np.concatenate(found) if found else np.empty(0, np.int64)
