"""DAMON's regions as a list of objects, from mm/damon/core.c of Linux 6.12, one statement after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass
class Region:
    """The pages [start, end); samples that found it accessed, now and in the aggregation before; and its age."""

    start: int
    end: int
    accesses: int = 0
    last: int = 0
    age: int = 0

    @property
    def size(self) -> int:
        return self.end - self.start


def merge(regions: Sequence[Region], threshold: int, largest: int) -> list[Region]:
    """Return what damon_merge_regions_of leaves."""
    kept: list[Region] = []
    for region in regions:
        region.age = 0 if abs(region.accesses - region.last) > threshold else region.age + 1
        before = kept[-1] if kept else None
        if (
            before
            and before.end == region.start
            and abs(before.accesses - region.accesses) <= threshold
            and before.size + region.size <= largest
        ):
            total = before.size + region.size
            before.accesses = (before.accesses * before.size + region.accesses * region.size) // total
            before.age = (before.age * before.size + region.age * region.size) // total
            before.end = region.end
        else:
            kept.append(region)
    return kept


def split(regions: Sequence[Region], pieces: int, tenths: Sequence[Sequence[int]]) -> list[Region]:
    """Return what damon_split_regions_of makes, where the left part of each split has so many tenths."""
    made: list[Region] = []
    for region, shares in zip(regions, tenths, strict=True):
        parts = [region]
        size = region.size
        for share in shares[: pieces - 1]:
            if size <= 2:
                break
            left = share * size // 10
            if left == 0 or left >= size:
                continue
            first = parts[0]
            parts[0] = replace(first, end=first.start + left)
            parts.insert(1, replace(first, start=first.start + left))
            size = left
        made.extend(parts)
    return made
