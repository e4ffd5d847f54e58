"""The monitor's own TLB: translations that its software walks have found (plex86)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import routine

__all__ = ["SoftwareTlb", "drop_pages", "look_up", "total"]

TLB = np.dtype(
    (
        np.record,
        [
            ("count", "i8"),  # pages that it holds
            ("hit", "i8"),  # cycles of a look-up that hits
            ("hits", "i8"),
            ("misses", "i8"),
            ("saved", "i8"),  # cycles of the walks that hits were spared, less those of the hits
        ],
    )
)


@routine
def look_up(tlb: Any, pages: NDArray[np.int64], page: int, walk: int) -> int:
    """Return what finding a page costs now: `walk` cycles if it is not there; from now on it is.

    Parameters
    ----------
    tlb : TLB
    pages : int64[entries]
        What it holds, the page used last first.
    """
    at = np.int64(0)
    while at < tlb.count and pages[at] != page:
        at += 1
    hit = at < tlb.count
    if hit:
        tlb.hits += 1
        tlb.saved += walk - tlb.hit
    else:
        tlb.misses += 1
        if len(pages) == 0:
            return walk
        tlb.count = min(tlb.count + 1, len(pages))
        at = tlb.count - 1
    while at > 0:
        pages[at] = pages[at - 1]
        at -= 1
    pages[0] = page
    return tlb.hit if hit else walk


@routine
def drop_pages(tlb: Any, pages: NDArray[np.int64], first: int, count: int) -> None:
    """Forget `count` pages from `first` on."""
    kept = np.int64(0)
    for at in range(tlb.count):
        if not first <= pages[at] < first + count:
            pages[kept] = pages[at]
            kept += 1
    tlb.count = kept


class SoftwareTlb:
    """A fully associative LRU cache of pages that the monitor has walked to; it holds nothing with 0 entries.

    Parameters
    ----------
    entries : int
        How many pages it remembers.
    hit_cycles : int
        What a look-up costs that hits.
    """

    def __init__(self, entries: int, *, hit_cycles: int) -> None:
        self.words: NDArray[Any] = np.zeros(1, TLB)
        self.words["hit"] = hit_cycles
        self.pages = np.empty(entries, np.int64)

    @property
    def hits(self) -> int:
        """Look-ups that found their page."""
        return int(self.words["hits"][0])

    @property
    def saved_cycles(self) -> int:
        """Cycles of the walks that hits were spared, less those of the hits."""
        return int(self.words["saved"][0])

    def flush(self) -> None:
        """Forget all: CR3 was loaded."""
        self.words["count"] = 0


def total(tlbs: Iterable[SoftwareTlb]) -> dict[str, int]:
    """Return what all of them have counted."""
    each = [tlb.words for tlb in tlbs]
    names = {"hits": "hits", "misses": "misses", "saved_cycles": "saved"}
    return {name: sum(int(words[field][0]) for words in each) for name, field in names.items()}
