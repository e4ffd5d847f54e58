"""Which regions a scheme is applied to, and in which order where a quota bounds that (Linux 6.12, mm/damon)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vmsim.base.units import PAGE
from vmsim.host.daemons.damon.table import Damon

__all__ = ["Scheme", "hotness"]

_SCORE = 99  # DAMOS_MAX_SCORE
_SUBSCORE = 100  # DAMON_MAX_SUBSCORE
_LOG = 32  # DAMON_MAX_AGE_IN_LOG


def hotness(accesses: int, most: int, seconds: int) -> int:
    """Return how hot a region is, 0 to 99: by how often it was accessed, and for how long that has been so.

    Both weigh the same (mm/damon/ops-common.c, damon_hot_score).

    Parameters
    ----------
    accesses, most : int
        Samples in which it was accessed, and of an aggregation.
    seconds : int
        Its age.
    """
    frequency = accesses * _SUBSCORE // most
    log = min(seconds.bit_length(), _LOG)
    age = ((log if frequency else -log) + _LOG) * _SUBSCORE // _LOG // 2
    return (frequency + age) // 2 * _SCORE // _SUBSCORE


class Scheme:
    """What of a table is about a scheme.

    Parameters
    ----------
    table : Damon
    samples : int
        Of an aggregation.
    aggregation, second : int
        Cycles of both.
    """

    def __init__(self, table: Damon, samples: int, *, aggregation: int, second: int) -> None:
        self.table = table
        self.samples = samples
        self.aggregation = aggregation
        self.second = second
        self.least = max(1, table.min_size // PAGE)
        self.most = samples if table.most_accesses is None else table.most_accesses
        self.quota = None if table.quota is None else table.quota // PAGE
        self.interval = table.quota_interval.cycles(second)
        self._begun = 0
        self._charged = 0

    def fits(self, regions: NDArray[np.void]) -> NDArray[np.bool_]:
        """Return which regions the scheme is for, bool[n] (damos_valid_target)."""
        size, accesses = regions["end"] - regions["start"], regions["accesses"]
        frequent = (accesses >= self.table.min_accesses) & (accesses <= self.most)
        return np.asarray((size >= self.least) & frequent & (regions["age"] >= self.table.min_age))

    def chosen(self, regions: NDArray[np.void], now: int) -> Iterator[tuple[int, int, int]]:
        """Yield (number, first page, last page) of what the scheme is applied to now.

        Without a quota, in order; with one the coldest first, of migrate_hot the hottest, and of the last one a part
        (damos_quota_score, damos_apply_scheme). What the quota has left begins anew with each interval.
        """
        found = np.flatnonzero(self.fits(regions)).tolist()
        if self.quota is None:
            for at in found:
                yield at, int(regions["start"][at]), int(regions["end"][at])
            return
        if now - self._begun >= self.interval:
            self._begun, self._charged = now, 0
        scores = {at: self._score(regions[at]) for at in found}
        sign = -1 if self.table.action == "migrate_hot" else 1
        for at in sorted(found, key=lambda at: (sign * scores[at], at)):
            left = self.quota - self._charged
            if left <= 0:
                return
            first = int(regions["start"][at])
            last = min(int(regions["end"][at]), first + left)
            self._charged += last - first
            yield at, first, last

    def _score(self, region: NDArray[np.void]) -> int:
        age = int(region["age"]) * self.aggregation // self.second
        return hotness(int(region["accesses"]), self.samples, age)
