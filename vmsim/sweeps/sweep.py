"""`Sweep`: a specification with its points."""

from __future__ import annotations

from collections.abc import Iterator

from vmsim.sweeps.points import Point, points
from vmsim.sweeps.spec import Spec

__all__ = ["Sweep"]


class Sweep(Spec):
    """A scenario, and what is varied in it; immutable.

    The points are all combinations of the axes, the rows of each zip, the rows of the list and those of the sample,
    without the ones that a filter leaves out, each repeated `replicates` times. Read one with `load` or `from_toml`,
    make one with `of`.
    """

    def points(self) -> Iterator[Point]:
        """Yield the points, each with its scenario, in the order of the file: the last axis varies fastest.

        Raises
        ------
        InputError
            A point's scenario cannot be; the message names its values.
        """
        return points(self)
