"""A stream that stands for a program (`vmsim.workloads.stand_in`), fitted to what is measured of the program.

Two columns are what papers print of a native run: misses of a TLB with pages of 4 KiB, and with pages of 2 MiB. The
first says how pages are used again, the second how regions are. A third figure, how much of the use the most popular
pages have, tells popularity from reuse: two columns cannot tell a page that is popular from one that was visited
lately. `Fitted.errors` says how well each parameter is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vmsim.base.errors import InputError
from vmsim.workloads.lru_stack import LruStack
from vmsim.workloads.stand_in import REGION, StandIn
from vmsim.workloads.stream import Chunk

__all__ = ["FITTED", "Columns", "Fitted", "columns", "fit", "visits_of"]

FITTED: Final = ("region_exponent", "page_exponent", "reuse")
"""The parameters that are fitted."""
PAGES: Final = 64
REGIONS: Final = 4
"""Entries of the TLBs of the two columns: so few that small programs miss in both."""
RECENT: Final = 16
"""How far back `reuse` goes: a TLB of the first column has those pages."""
LEAST: Final = 1000
"""Visits of which something can be measured."""
_TENTH: Final = 0.1
_KNOWN: Final = 0.02  # how well a figure is known, of itself
_LEAST: Final = 1e-6  # misses per visit that are told from none
_STEP: Final = 0.1
_MOST: Final = 16  # accesses of a stream for each of the program's visits: most of those to popular pages run together
_STARTS: Final = ((1.0, 1.0, 2.5), (1.5, 0.7, 5.0))
_SIDES: Final = (0.7, 0.7, 1.5)
_PATIENCE: Final = {"maxfev": 60, "xatol": 0.01, "fatol": 1e-4}

Visits = NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """What is measured of a stream's second half, the TLBs warm from its first.

    Attributes
    ----------
    visits, pages, regions : int
        Visits to pages in all, and the pages of 4 KiB and regions of 2 MiB that they touch.
    of_pages, of_regions : float64[entries + 1]
        Misses of a fully associative LRU TLB by its number of entries, per visit, with pages of 4 KiB and of 2 MiB.
    tenth : float
        Share of the visits that the most popular tenth of the pages has.
    """

    visits: int
    pages: int
    regions: int
    of_pages: NDArray[np.float64]
    of_regions: NDArray[np.float64]
    tenth: float

    def misses(self, entries: int, *, large: bool = False) -> float:
        """Return the misses per visit of a TLB of so many entries, with large pages or small ones."""
        curve = self.of_regions if large else self.of_pages
        return float(curve[min(entries, len(curve) - 1)])

    @property
    def fitted(self) -> tuple[float, float, float]:
        """The three figures that parameters are fitted to: misses with large pages, popularity, misses with small."""
        return self.misses(REGIONS, large=True), self.tenth, self.misses(PAGES)


@dataclass(frozen=True)
class Fitted:
    """A stream with the parameters found.

    Attributes
    ----------
    stream : StandIn
    there, made : Columns
        Of the program and of the stream.
    errors, of_two : dict of str to float
        The standard error of each parameter if every figure is known to 2 %: by all three, and by the two columns
        alone where `page_exponent` is known from elsewhere. Infinite: the figures do not say.
    """

    stream: StandIn
    there: Columns
    made: Columns
    errors: dict[str, float]
    of_two: dict[str, float]


def visits_of(chunks: Iterable[Chunk], most: int, skip: int = 0) -> tuple[Visits, float]:
    """Return the pages that a stream visits one after the other, int64[n], and how many accesses a visit has.

    Parameters
    ----------
    chunks
        Of one thread.
    most : int
        Visits, after which the rest is left out.
    skip : int, optional
        Visits before the first that counts.
    """
    parts: list[Visits] = []
    made = accesses = 0
    last = -1
    for chunk in chunks:
        pages = chunk.address >> 12
        new = np.flatnonzero(np.diff(pages, prepend=last))
        if len(pages):
            last = int(pages[-1])
        if made == 0:
            skipped = min(skip, len(new))
            skip, new = skip - skipped, new[skipped:]
            if not len(new):
                continue
        room = most - made
        begin = 0 if made else new[0]
        accesses += int(chunk.count[begin : new[room] if len(new) > room else None].sum())
        parts.append(pages[new[:room]])
        made += len(parts[-1])
        if made == most:
            break
    visits = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return visits, accesses / max(1, len(visits))


def columns(visits: Visits) -> Columns:
    """Return what is measured of visits to pages, int64[n]."""
    if len(visits) < LEAST:
        raise InputError(f"{len(visits):,} visits to pages: expected {LEAST:,} or more to measure anything of them.")
    _, counts = np.unique(visits, return_counts=True)
    most = np.sort(counts)[::-1][: max(1, round(_TENTH * len(counts)))]
    return Columns(
        visits=len(visits),
        pages=len(counts),
        regions=len(np.unique(visits >> 9)),
        of_pages=_misses(visits),
        of_regions=_misses(visits >> 9),
        tenth=float(most.sum() / len(visits)),
    )


def _misses(used: Visits) -> NDArray[np.float64]:
    """Return the misses of the second half by the number of entries."""
    stack, half = LruStack(), len(used) // 2
    ones = np.ones(len(used), np.int32)
    stack.use(used[:half], ones[:half])
    before = stack.hits
    stack.use(used[half:], ones[half:])
    hits = stack.hits
    hits[: len(before)] -= before
    misses: NDArray[np.float64] = 1 - np.cumsum(hits) / (len(used) - half)
    return misses


def fit(visits: Visits, lines: float = 1.0, *, seed: int = 1, say: Callable[[str], None] = lambda _: None) -> Fitted:
    """Fit a stream to a program's visits: `region_exponent`, `page_exponent` and `reuse`; the rest is counted.

    The sum of the squared logarithms of what the three figures are off by is made small by the simplex method (J. A.
    Nelder, R. Mead, The Computer Journal 7, 1965), from two starts, and once more from
    the better end.

    Parameters
    ----------
    visits : int64[n]
        Pages, one after the other.
    lines : float
        Accesses of a visit.
    seed : int
    say : callable
        Told how far it is.
    """
    from scipy.optimize import minimize

    there = columns(visits)
    wanted = np.log(np.maximum(there.fitted, _LEAST))
    plain = StandIn(size=there.regions * REGION, runs=_MOST * len(visits), lines=1, seed=seed, recent=RECENT)
    tried = 0

    def off(place: NDArray[np.float64]) -> float:
        nonlocal tried
        tried += 1
        say(f"stream {tried}")
        return float(((_figures(_with(plain, place)) - wanted) ** 2).sum())

    def nearest(start: Sequence[float]) -> Any:
        corners = np.array([start, *(np.array(start) + step for step in np.diag(_SIDES))])
        return minimize(off, start, method="Nelder-Mead", options=_PATIENCE | {"initial_simplex": corners})

    best = min(map(nearest, _STARTS), key=lambda each: each.fun)
    stream = _with(plain, min(best, nearest(best.x), key=lambda each: each.fun).x)
    slopes = np.array([_slopes(stream, key) for key in FITTED]).T
    again, each = _visits(stream)
    many = min(64, max(1, round(lines / each)))  # a visit to the page of the last one is none of its own
    made = columns(again)
    whole = replace(stream, lines=many, runs=round(many * each * len(again)))
    columns_alone = _errors(slopes[::2, ::2], FITTED[::2])
    return Fitted(whole, there, made, _errors(slopes, FITTED), columns_alone)


def _with(stream: StandIn, place: NDArray[np.float64]) -> StandIn:
    """Return a stream with the parameters at a place: the exponents, and -ln(1 - reuse)."""
    region, page, often = np.clip(place, 0, (6, 6, 9)).tolist()
    return replace(
        stream, region_exponent=round(region, 3), page_exponent=round(page, 3), reuse=round(1 - exp(-often), 5)
    )


def _figures(stream: StandIn) -> NDArray[np.float64]:
    """Return the logarithms of the three figures of a stream; of one that stays on a page, those of no miss."""
    visits, _ = _visits(stream)
    if len(visits) < LEAST:
        return np.log([_LEAST, 1.0, _LEAST])
    return np.asarray(np.log(np.maximum(columns(visits).fitted, _LEAST)))


def _visits(stream: StandIn) -> tuple[Visits, float]:
    """Return as many visits of a stream as its program has, as far as it has so many, and the accesses of one."""
    return visits_of(stream.chunks(), stream.runs // _MOST)


def _slopes(stream: StandIn, key: str) -> NDArray[np.float64]:
    """Return by how much the logarithm of each figure changes with a parameter."""
    here = float(getattr(stream, key))
    step = _STEP * (1 - here) if key == "reuse" else _STEP
    low, high = max(0.0, here - step), here + step
    ends: list[dict[str, Any]] = [{key: low}, {key: high}]
    before, after = (_figures(replace(stream, **each)) for each in ends)
    return (after - before) / (high - low)


def _errors(slopes: NDArray[np.float64], keys: Sequence[str]) -> dict[str, float]:
    """Return the standard error of each parameter (a column), by figures (rows) that are known to 2 %."""
    scale = np.maximum(np.abs(slopes).max(axis=0), 1e-12)  # so that no parameter weighs more by its unit
    values, vectors = np.linalg.eigh((slopes / scale).T @ (slopes / scale) / _KNOWN**2)
    free = values < 1e-6 * values.max()  # directions in which nothing changes
    found = {}
    for number, key in enumerate(keys):
        lies = vectors[number] ** 2
        known = float((lies[~free] / values[~free]).sum() ** 0.5 / scale[number])
        found[key] = float("inf") if lies[free].sum() > 1e-3 else known
    return found
