"""Shards: parts of a sweep that run apart, on machines that need not know each other.

A shard is a run of points in the sweep's order, cut so that all shards have about the same number of accesses to
simulate. So the stores of all shards, merged in their order, are that of the whole sweep, byte for byte.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple, Self

import numpy as np

from vmsim.base.errors import InputError

__all__ = ["MOST", "Shard"]

MOST: Final = 100_000
_FORM: Final = re.compile(r"([0-9]{1,9})/([0-9]{1,9})", re.ASCII)


class Shard(NamedTuple):
    """One of so many parts.

    Attributes
    ----------
    number : int
        Which, from 1.
    of : int
        How many there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return a shard from a text such as ``3/64``.

        Raises
        ------
        InputError
            It is none.
        """
        match = _FORM.fullmatch(text.strip())
        if not match:
            raise InputError(f"--shard: found {text[:80]!r}, expected its number and how many there are: 3/64.")
        number, of = int(match[1]), int(match[2])
        if not 1 <= number <= of <= MOST:
            hint = " Shards are counted from 1: with an array of 0-63, give $((SLURM_ARRAY_TASK_ID + 1))/64."
            text = f"--shard: found {number}/{of}, expected a number from 1 to {min(max(of, 1), MOST):,}"
            raise InputError(f"{text} of at most {MOST:,} shards.{hint if not number else ''}")
        return cls(number, of)

    def bounds(self, costs: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[int, int]:
        """Return which points are its own, [first, end), of points that cost so much.

        A point is in the shard in which the middle of it lies when all costs are put end to end.
        """
        ends = np.cumsum(costs + 1.0)  # 1: points without accesses take time too
        if not len(ends):
            return 0, 0
        whose = np.minimum((ends - (costs + 1.0) / 2) * self.of // ends[-1], self.of - 1)
        first, end = np.searchsorted(whose, [self.number - 1, self.number])
        return int(first), int(end)

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"
