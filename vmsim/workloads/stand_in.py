"""A synthetic workload that stands for a program: its parameters are what papers report of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from vmsim.workloads.generators import ADDRESS, DETAIL, ORDER, random_source, ranks_of, raw_words
from vmsim.workloads.programs import Program, Step
from vmsim.workloads.stream import PAGE, Addresses, Op

__all__ = ["EDITS", "REGION", "StandIn"]

REGION: Final = 512 * PAGE
"""Bytes of a region: what one page table of level 1 maps, and a large page."""
EDITS: Final = ("map", "protect", "discard")
_LINE: Final = 64
_LINES: Final = PAGE // _LINE
_MILLION: Final = 1_000_000
_INIT: Final = 1  # the process that a stream starts in
_READ, _WRITE = 1, 2  # protection bits
_HUGEPAGE: Final = 14  # MADV_HUGEPAGE
_WRITES, _PAGE, _AGAIN, _EDIT, _LARGE = range(10, 15)  # uses of randomness


@dataclass(frozen=True, kw_only=True)
class StandIn(Program):
    """Visits to pages, of `lines` accesses each to cache lines that follow one another, with edits of the tables.

    A visit goes to one of the `recent` pages visited last with the likelihood `reuse`, any of them; else to a region
    of 2 MiB by Zipf's law, and a page of it by another.

    Parameters
    ----------
    region_exponent, page_exponent : float
        Of the laws: how the likelihoods of regions, and of the pages of one, fall with their rank. A seeded shuffle
        says which region has which rank; which page of it has differs from region to region.
    reuse : float
        From 0 to 1.
    recent : int
        How far back, in visits.
    lines : int
        Accesses of a visit, 1 to 64.
    large : float
        Share of the regions that are mapped before the first access, huge pages wanted (MADV_HUGEPAGE). It has an
        effect where the kernel heeds it.
    edits : float
        Edits of page tables in a million accesses, at equal distances.
    edit : str
        What one does to a block of the footprint: "map" unmaps it and maps it again, "protect" takes the right to write
        and gives it back, "discard" frees its pages (MADV_DONTNEED).
    block : int
        Bytes of such a block: whole pages. Any of the footprint is as likely as any other.
    """

    region_exponent: float = 1.0
    page_exponent: float = 0.0
    reuse: float = 0.0
    recent: int = 256
    lines: int = 4
    large: float = 0.0
    edits: float = 0.0
    edit: str = "map"
    block: int = 16 * PAGE

    name = "stand-in"
    one_thread = ""

    def _check(self) -> None:
        self._positive(recent=self.recent, block=self.block)
        self._whole_pages(block=self.block)
        if self.size % REGION:
            self._refuse("footprint", self.size, "whole regions of 2 MiB")
        if self.base % REGION:
            self._refuse("base", self.base, "a multiple of 2 MiB")
        if self.block > self.size:
            self._refuse("block", self.block, f"at most the footprint ({self.size} bytes)")
        for key in ("region_exponent", "page_exponent"):
            if not 0 <= getattr(self, key) <= 8:
                self._refuse(key, getattr(self, key), "a number from 0 to 8")
        for key in ("reuse", "large"):
            if not 0 <= getattr(self, key) <= 1:
                self._refuse(key, getattr(self, key), "a fraction from 0 to 1")
        if not 1 <= self.lines <= _LINES:
            self._refuse("lines", self.lines, f"a number from 1 to {_LINES}")
        if not 0 <= self.edits <= _MILLION:
            self._refuse("edits", self.edits, "a number from 0 to a million")
        if self.edit not in EDITS:
            self._refuse("edit", self.edit, " or ".join(f'"{each}"' for each in EDITS))

    @cached_property
    def _regions(self) -> Addresses:
        """Numbers of the regions by rank, int64[regions]."""
        words = raw_words(random_source(self.seed, ORDER), self.size // REGION)
        return np.argsort(words, kind="stable").astype(np.int64)

    def wanted_large(self) -> Addresses:
        """Return the numbers of the regions for which huge pages are wanted, ascending, int64[n]."""
        regions = self.size // REGION
        words = raw_words(random_source(self.seed, _LARGE), regions)
        return np.sort(np.argsort(words, kind="stable")[: round(self.large * regions)]).astype(np.int64)

    def _steps(self, thread: int) -> Iterator[Step]:
        if thread == 0:
            for region in self.wanted_large().tolist():
                where = _INIT, self.base + region * REGION, REGION
                yield Op.MAP, *where, _READ | _WRITE
                yield Op.ADVISE, *where, _HUGEPAGE
        if self.threads > 1 and self.large:
            yield Op.BARRIER, _INIT, 0, 0, 0
        edited, write = random_source(self.seed, _EDIT, thread), random_source(self.seed, _WRITES, thread)
        made = done = 0
        for addresses in self._visits(thread):
            first = 0
            while first < len(addresses):
                due = round((done + 1) * _MILLION / self.edits) - made if self.edits else len(addresses)
                if due < 1:
                    yield from self._edited(edited)
                    done += 1
                    continue
                part = addresses[first : first + due]
                yield part, self._kinds(write, len(part))
                first += len(part)
                made += len(part)

    def _edited(self, source: np.random.PCG64) -> Iterator[Step]:
        """Give an edit of a block drawn."""
        block = int(source.random_raw()) * (self.size // self.block) >> 64
        where = _INIT, self.base + block * self.block, self.block
        if self.edit == "discard":
            yield Op.DISCARD, *where, 0
            return
        yield (Op.UNMAP, *where, 0) if self.edit == "map" else (Op.PROTECT, *where, _READ)
        yield (Op.MAP if self.edit == "map" else Op.PROTECT), *where, _READ | _WRITE

    def _visits(self, thread: int) -> Iterator[Addresses]:
        """Give the addresses of a thread's visits."""
        from vmsim.workloads.kernels import revisit, zipf

        uses = (ADDRESS, DETAIL, _PAGE, _AGAIN)
        region, line, page, again = (random_source(self.seed, use, thread) for use in uses)
        regions, pages = ranks_of(len(self._regions), self.region_exponent), ranks_of(512, self.page_exponent)
        ranks = np.arange(512, dtype=np.int64)
        lately = np.zeros(self.recent + 1, np.int64)
        threshold = np.uint64(round(self.reuse * (1 << 32)))
        left = self._part(self.runs, thread)
        each = max(1, self.chunk // self.lines)
        while left:
            visits = min(each, -(-left // self.lines))
            found, rank = np.empty(visits, np.int64), np.empty(visits, np.int64)
            none = np.zeros(visits, np.uint64)
            zipf(raw_words(region, visits), none, *regions, self._regions, found)
            zipf(raw_words(page, visits), none, *pages, ranks, rank)
            found = found * 512 + _shuffled(rank, found)
            revisit(raw_words(again, visits), threshold, lately, found)
            start = (raw_words(line, visits) >> np.uint64(58)).astype(np.int64)
            lines = (start[:, None] + np.arange(self.lines)) & (_LINES - 1)
            addresses = (self.base + found[:, None] * PAGE + lines * _LINE).ravel()[:left]
            left -= len(addresses)
            yield addresses


def _shuffled(rank: Addresses, region: Addresses) -> Addresses:
    """Return which page of a region has a rank: an odd factor and an offset, both the region's own, shuffle all 512."""
    mixed = region * 0x7FEB352D
    shuffled: Addresses = (rank * (mixed >> 7 | 1) + (mixed >> 17)) & 511
    return shuffled
