"""Times in buckets whose width grows with them, as in HdrHistogram: bounded memory, and a bounded relative error."""

from __future__ import annotations

from typing import Final, Self

__all__ = ["EXACT", "PRECISION", "Histogram"]

PRECISION: Final = 9
"""Buckets to each power of two, as a power of two: one is at most 2**-9 (0.2 %) of what is in it wide."""
EXACT: Final = 1 << (PRECISION + 1)
"""Values below this have buckets of their own."""


class Histogram:
    """How often each of some whole numbers occurred, those that agree in their leading 10 bits together.

    Each bucket has the sum of its values beside their number, and stands for their mean: one in which all values are
    equal gives exactly that value, and the sum of all values is exact. Any other value differs from the mean of its
    bucket by less than 2**-9 of itself. Values below 2**63 have 28,160 buckets at most, however many are added.

    Examples
    --------
    >>> times = Histogram()
    >>> times.add(1000)
    >>> times.add(1000)
    >>> times.add(70_000)
    >>> times.means()
    {1000: 2, 70000: 1}
    """

    def __init__(self) -> None:
        self._buckets: dict[int, list[int]] = {}  # number and sum, by the least value that would be in it

    @property
    def count(self) -> int:
        """How many values were added."""
        return sum(count for count, _ in self._buckets.values())

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(total for _, total in self._buckets.values())

    def add(self, value: int, times: int = 1) -> None:
        """Note a value, at least 0, so many times."""
        value = int(value)  # a number of numpy's overflows, and has no bit_length before numpy 2
        low = value
        if value >= EXACT:
            shift = value.bit_length() - PRECISION - 1
            low = value >> shift << shift
        bucket = self._buckets.get(low)
        if bucket is None:
            self._buckets[low] = [times, times * value]
        else:
            bucket[0] += times
            bucket[1] += times * value

    def merge(self, other: Self) -> None:
        """Note all values of another."""
        for low, (count, total) in other._buckets.items():
            bucket = self._buckets.setdefault(low, [0, 0])
            bucket[0] += count
            bucket[1] += total

    def means(self) -> dict[int, int]:
        """Return how many values each bucket has, by their mean (rounded down), ascending."""
        return {total // count: count for _, (count, total) in sorted(self._buckets.items()) if count}

    def copy(self) -> Self:
        """Return one with the same values."""
        made = type(self)()
        made._buckets = {low: [*bucket] for low, bucket in self._buckets.items()}
        return made

    def __sub__(self, earlier: Self) -> Self:
        """Return one with the values that were added since `earlier` was a copy of this."""
        made = self.copy()
        for low, (count, total) in earlier._buckets.items():
            made._buckets[low][0] -= count
            made._buckets[low][1] -= total
        return made

    def __len__(self) -> int:
        """Return how many buckets it keeps."""
        return len(self._buckets)
