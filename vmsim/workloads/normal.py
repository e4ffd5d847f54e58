"""A synthetic workload whose pages are drawn by the normal law."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vmsim.workloads.generators import ADDRESS, DETAIL, Generator, random_source, raw_words
from vmsim.workloads.stream import PAGE, Addresses, Chunk, Kind

__all__ = ["TERMS", "Normal"]

TERMS = 12  # of the sum by which a page is drawn


@dataclass(frozen=True, kw_only=True)
class Normal(Generator):
    """Pages chosen by the normal law, the middle one the likeliest, as pmbench's pattern normal_ih (pattern.c).

    The page's number is the mean of twelve uniform ones, rounded down (Irwin and Hall): its standard deviation is a
    twelfth of the footprint, and each page can be drawn. The word within the page is uniform. If `filled`, the first
    accesses write each page once, in order; the threads share them.
    """

    filled: bool = False

    name = "normal"

    def _check(self) -> None:
        if self.size % PAGE:
            self._refuse("footprint", self.size, "whole pages of 4096 bytes")
        if self.filled and self.runs < self.size // PAGE:
            self._refuse("accesses", self.runs, f"one for each page at least ({self.size // PAGE})")

    def chunks(self, thread: int = 0) -> Iterator[Chunk]:
        """Read a thread's stream from its start."""
        left = self._part(self.size // PAGE, thread) if self.filled else 0
        for chunk in super().chunks(thread):
            chunk.kind[:left] = Kind.WRITE
            left = max(0, left - len(chunk.kind))
            yield chunk

    def _blocks(self, thread: int) -> Iterator[Addresses]:
        from vmsim.workloads.kernels import normal

        pages = self.size // PAGE
        source, detail = (random_source(self.seed, use, thread) for use in (ADDRESS, DETAIL))
        start = sum(self._part(pages, before) for before in range(thread))
        own = self._part(pages, thread) if self.filled else 0
        for begun, runs in self._sizes(self._part(self.runs, thread)):
            fills = min(max(own - begun, 0), runs)
            drawn, out = runs - fills, np.empty(runs, np.int64)
            out[:fills] = self.base + PAGE * np.arange(start + begun, start + begun + fills)
            normal(raw_words(source, TERMS * drawn), raw_words(detail, drawn), np.uint64(pages), self.base, out[fills:])
            yield out
