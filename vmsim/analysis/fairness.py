"""How evenly VMs that share a host get on: Jain's index, and the least over the most.

R. Jain, D. Chiu, W. Hawe, A Quantitative Measure of Fairness and Discrimination for Resource Allocation in Shared
Computer Systems, DEC Research Report TR-301, 1984: (sum x)^2 / (n sum x^2), 1 where all have the same, 1/n where one
has everything. The other figure is what max-min fairness maximises, as a part of the most that anybody has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["jain", "least_over_most", "progress"]


def jain(values: Iterable[float]) -> float:
    """Return Jain's index of what each has, from 1/n to 1; 1 if nobody has anything.

    Examples
    --------
    >>> jain([1, 1, 1, 1])
    1.0
    >>> jain([1, 0, 0, 0])
    0.25
    """
    found = [float(value) for value in values]
    squares = len(found) * sum(value * value for value in found)
    return sum(found) ** 2 / squares if squares else 1.0


def least_over_most(values: Iterable[float]) -> float:
    """Return the least that anybody has over the most, from 0 to 1; 1 if nobody has anything."""
    found = [float(value) for value in values]
    return min(found) / max(found) if found and max(found) > 0 else 1.0


def progress(slowdowns: Sequence[float]) -> list[float]:
    """Return how fast each VM gets on, as a part of how fast it does alone; VMs without a slowdown are left out."""
    return [1 / slowdown for slowdown in slowdowns if slowdown > 0]
