"""The verb `zap_each` of paging modes that know how to zap a range: each run of consecutive frames is one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from vmsim.contracts import NO_FLUSH, Flush, Words

__all__ = ["ByRuns", "runs_of", "zap_runs"]


class _Zaps(Protocol):
    def zap(self, first: int, count: int) -> Flush: ...


class ByRuns:
    """Of a mode that has nothing better."""

    accessed_flags = True

    @abstractmethod
    def zap(self, first: int, count: int) -> Flush:
        """Clear what maps `count` guest frames from `first` on."""

    def zap_each(self, gfns: Words) -> Flush:
        """Do the same to some frames, int64[n] ascending."""
        return zap_runs(self, gfns)


def zap_runs(entries: _Zaps, gfns: Words) -> Flush:
    """Clear what maps some frames, int64[n] ascending, run by run."""
    flush = NO_FLUSH
    for first, count in runs_of(gfns):
        flush += entries.zap(first, count)
    return flush


def runs_of(gfns: Words) -> Iterator[tuple[int, int]]:
    """Yield the first and the length of each run of consecutive numbers, int64[n] ascending."""
    if not len(gfns):
        return
    ends = np.flatnonzero(np.diff(gfns) != 1) + 1
    for first, limit in zip((0, *ends.tolist()), (*ends.tolist(), len(gfns)), strict=True):
        yield int(gfns[first]), limit - first
