"""Regions of memory, merged where their accesses are alike and split again (Linux 6.12, mm/damon/core.c)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel

__all__ = ["REGION", "first_regions", "merge", "split"]

REGION = np.dtype(
    [
        ("start", "i8"),  # the pages [start, end)
        ("end", "i8"),
        ("accesses", "i8"),  # samples of this aggregation in which a page of it was accessed
        ("last", "i8"),  # of the one before
        ("age", "i8"),  # aggregations for which that has been much the same
    ]
)


def first_regions(pages: int, count: int, room: int) -> tuple[NDArray[np.void], int]:
    """Return regions of equal size of so many pages, REGION[room], and how many there are (damon_va_evenly_split)."""
    regions = np.zeros(room, REGION)
    size = max(1, pages // count)
    starts = np.arange(0, size * min(count, pages), size)
    regions["start"][: len(starts)] = starts
    regions["end"][: len(starts)] = np.append(starts[1:], pages)
    return regions, len(starts)


@kernel
def merge(regions, count, threshold, largest):  # type: ignore[no-untyped-def]
    """Merge neighbours whose accesses differ by a threshold at most, up to a size; return how many regions are left.

    The age of a region grows, or begins anew where its accesses have changed by more (damon_merge_regions_of).
    """
    kept = np.int64(0)
    for at in range(count):
        region = regions[at]
        if abs(region.accesses - region.last) > threshold:
            region.age = 0
        else:
            region.age += 1
        if kept:
            before = regions[kept - 1]
            size, more = before.end - before.start, region.end - region.start
            alike = abs(before.accesses - region.accesses) <= threshold
            if before.end == region.start and alike and size + more <= largest:
                before.accesses = (before.accesses * size + region.accesses * more) // (size + more)
                before.age = (before.age * size + region.age * more) // (size + more)
                before.end = region.end
                continue
        regions[kept] = region
        kept += 1
    return kept


@kernel
def split(regions, count, pieces, draws, made):  # type: ignore[no-untyped-def]
    """Split each region in so many pieces (2 or 3) at random places; return how many regions there are.

    Parameters
    ----------
    draws : int64[2 * count]
        1 to 9 each: tenths of a region that its left piece has (damon_split_regions_of).
    made : REGION[3 * count]
        Filled.
    """
    total = np.int64(0)
    for at in range(count):
        region = regions[at]
        size = region.end - region.start
        first = total
        made[total] = region
        total += 1
        for piece in range(pieces - 1):
            if size <= 2:
                break
            left = draws[2 * at + piece] * size // 10
            if left == 0 or left >= size:
                continue
            # The right part is a region of its own, put behind the left one.
            for other in range(total, first + 1, -1):
                made[other] = made[other - 1]
            made[first + 1] = made[first]
            made[first + 1].start = made[first].start + left
            made[first].end = made[first + 1].start
            total += 1
            size = left
    return total
