"""The measured loops, compiled: they do nothing but loads, or stores, that depend on one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel

__all__ = ["follow", "spin", "touch"]


@kernel
def follow(links: NDArray[np.int64], at: int, steps: int) -> int:
    """Go along pointers, each of which is the index of the next; return the last.

    An index without a sign needs no look whether it counts from the end, which would be two cycles more a load.
    """
    place = np.uint64(at)
    for _ in range(steps):
        place = np.uint64(links[place])
    return int(place)


@kernel
def spin(steps: int) -> int:
    """Run six instructions so often, each of which waits for the one before, and takes a cycle: shifts and xors."""
    x = np.uint64(88172645463325252)
    for _ in range(steps):
        x ^= x << np.uint64(13)
        x ^= x >> np.uint64(7)
        x ^= x << np.uint64(17)
    return int(x)


@kernel
def touch(words: NDArray[np.int64], stride: int, count: int) -> None:
    """Write to every `stride`-th word, so many times."""
    for number in range(count):
        words[number * stride] = np.int64(number)
