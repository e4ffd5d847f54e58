"""The measured loops, compiled: they do nothing but loads, or stores, that depend on one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel

__all__ = ["follow", "touch"]


@kernel
def follow(links: NDArray[np.int64], at: int, steps: int) -> int:
    """Go along pointers, each of which is the index of the next; return the last."""
    for _ in range(steps):
        at = links[at]
    return at


@kernel
def touch(words: NDArray[np.int64], stride: int, count: int) -> None:
    """Write to every `stride`-th word, so many times."""
    for number in range(count):
        words[number * stride] = np.int64(number)
