"""What a scenario says of `nx_huge_pages`: large pages that are not executable, and split when code is fetched."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["NxSplitSpec"]


class NxSplitSpec(NamedTuple):
    """What a monitor is told of it.

    Attributes
    ----------
    period : int
        Cycles between two recoveries.
    ratio : int
        Of the pages split, one in so many is recovered at a time, rounded up; 0: none ever is.
    """

    period: int
    ratio: int
