"""Miss-ratio curves: what share of a stream's accesses would miss in a memory of so many pages under LRU.

Exact in one pass by Mattson's stack, or estimated from a sample of the pages (SHARDS); see `vmsim.workloads.reuse`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import vmsim.analysis.plain_matplotlib  # noqa: F401  (before matplotlib)

# isort: split

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from vmsim.analysis.style import PALETTE
from vmsim.base.errors import InputError, nearest
from vmsim.base.files import printable
from vmsim.base.progress import Progress, Wanted, showing
from vmsim.base.units import format_size
from vmsim.engine.streams import stream_of
from vmsim.record.result import Result
from vmsim.scenario import Scenario
from vmsim.workloads.reuse import Reuse, Sample
from vmsim.workloads.stream import PAGE, Chunk, Stream
from vmsim.workloads.trace import TraceStream, find

__all__ = ["LEAST_RATE", "MissRatios", "draw", "miss_ratios", "mrc"]

LEAST_RATE: Final = 2.0**-20
PARTS: Final = 8  # disjoint parts of a sample, whose spread is its error
_STEPS: Final = 4  # sizes between two powers of two
_ROUNDING: Final = 1e-12


@dataclass(frozen=True)
class MissRatios:
    """The miss-ratio curve of a stream.

    Attributes
    ----------
    name : str
        Of the VM, or of the trace.
    accesses : int
        Of the whole stream.
    first : float
        Share of accesses to pages that were not there, never touched or given back: they miss in any memory.
    rate : float
        Share of the pages that was followed; 1: the curve is exact.
    table : DataFrame
        A row for each size: pages, bytes, miss_ratio (share of accesses, first ones included), and error, the
        standard error of a sampled miss_ratio (0 where exact, not a number where the sample is too small to tell).
    """

    name: str
    accesses: int
    first: float
    rate: float
    table: pd.DataFrame

    def pages_for(self, more: float) -> int:
        """Return the least size of the table, in pages, at which at most `more` miss besides the first accesses."""
        pages, ratios = self.table["pages"].to_numpy(), self.table["miss_ratio"].to_numpy()
        enough = np.flatnonzero(ratios <= self.first + more + _ROUNDING)
        return int(pages[enough[0] if len(enough) else -1])


def mrc(
    source: Path | str | Scenario,
    *,
    vms: Sequence[str] = (),
    rate: float | None = None,
    pages: int | None = None,
    progress: Wanted = None,
) -> list[MissRatios]:
    """Return the miss-ratio curve of a trace, or of each VM of a scenario or a run.

    Parameters
    ----------
    source : path or Scenario
        A trace in any known format, or the name of a bundled one; a scenario, or its file (``.toml``); or a run
        directory.
    vms : sequence of str, optional
        Only of these VMs.
    rate, pages : optional
        Follow this share of the pages, or about so many of them; see `miss_ratios`.
    progress : bool or callable, optional
        Show how far it is. In a notebook it is shown unless it is False.

    Raises
    ------
    InputError
        The source cannot be read, has no such VM, or the sample is not possible.
    """
    with showing("reading", progress) as show:
        return [
            miss_ratios(stream, name=name, rate=rate, pages=pages, progress=show)
            for name, stream in _streams(source, vms)
        ]


def _streams(source: Path | str | Scenario, vms: Sequence[str]) -> Iterator[tuple[str, Stream]]:
    """Yield what there is to read, with its name; all threads of a VM are one stream."""
    if isinstance(source, Scenario):
        scenario, where = source, "the scenario"
    elif (path := Path(source)).is_dir():
        scenario, where = Result.load(path).scenario, printable(path)
    elif path.suffix == ".toml":
        scenario, where = Scenario.load(path), printable(path)
    elif vms:
        raise InputError(f"{printable(path)}: a trace has no VMs, and {vms[0]!r} was asked for.")
    else:
        stream = TraceStream(find(path, Path()))
        yield stream.name, stream
        return
    known = [vm.name for vm in scenario.vms]
    for name in vms:
        if name not in known:
            raise InputError(f"{where} has no VM {name!r}. {nearest(name, known)}")
    for vm in scenario.vms:
        if not vms or vm.name in vms:
            yield vm.name, stream_of(scenario, vm, cpus=1)


def miss_ratios(
    stream: Stream,
    *,
    name: str = "",
    rate: float | None = None,
    pages: int | None = None,
    progress: Progress | None = None,
) -> MissRatios:
    """Return the miss-ratio curve of a stream, of all its threads in turn.

    Parameters
    ----------
    stream : Stream
    name : str, optional
        What to call it; the stream's name otherwise.
    rate : float, optional
        Follow this share of the pages, 2**-20 to 1. All without it.
    pages : int, optional
        Follow about so many pages, in place of a share.
    progress : callable, optional
        Called chunk by chunk; see `vmsim.base.progress.Progress`.

    Raises
    ------
    InputError
        The share is not in its range, both are given, or no page is in the sample.
    """
    if rate is not None and pages is not None:
        raise InputError("a share of the pages and a number of pages: expected one of the two.")
    if pages is not None:
        if pages < 1:
            raise InputError(f"a sample of {pages} pages: expected at least 1.")
        rate = min(1.0, max(LEAST_RATE, pages * PAGE / max(PAGE, int(stream.footprint()[1].sum()))))
    rate = 1.0 if rate is None else rate
    if not LEAST_RATE <= rate <= 1:
        raise InputError(f"a sample of {rate:g} of the pages: expected a share from {LEAST_RATE:g} to 1.")
    name = name or stream.name
    reuse = Reuse(rate, PARTS if rate < 1 else 0)
    reuse.add(_told(stream, name, progress))
    if not reuse.accesses:
        raise InputError(f"{name}: there are no accesses, so nothing misses.")
    if not reuse.sample.accesses:
        raise InputError(f"{name}: a sample of {rate:g} of its pages holds none of them: choose a larger one.")
    return _curve(name, reuse)


def _told(stream: Stream, name: str, progress: Progress | None) -> Iterator[Chunk]:
    """Read a stream of one thread and say how far it is."""
    done = 0
    for chunk in stream.chunks():
        yield chunk
        done += int(chunk.count.sum(dtype=np.int64))
        if progress:
            progress(name, done, stream.accesses)


def _curve(name: str, reuse: Reuse) -> MissRatios:
    whole = reuse.sample
    largest = max(1, int(np.ceil((len(whole.stack.hits) - 1) / whole.rate)))  # pages: more of them hit no more
    steps = np.arange(0, np.log2(largest), 1 / _STEPS)
    sizes = np.unique(np.append(np.ceil(2.0**steps).astype(np.int64), largest))
    sizes = sizes[sizes >= min(largest, 1 / whole.rate)]  # a sample does not tell smaller ones apart
    ratios = _ratios(whole, reuse.accesses, sizes)
    errors = np.zeros(len(sizes))
    if reuse.parts:
        used = [part for part in reuse.parts if part.accesses]
        each = np.array([_ratios(part, reuse.accesses, sizes) for part in used])
        errors = each.std(axis=0, ddof=1) / np.sqrt(len(used)) if len(used) > 1 else np.full(len(sizes), np.nan)
        errors[sizes < 1 / reuse.parts[0].rate] = np.nan
    table = pd.DataFrame({"pages": sizes, "bytes": sizes * PAGE, "miss_ratio": ratios, "error": errors})
    expected = whole.rate * reuse.accesses if reuse.parts else whole.accesses
    return MissRatios(name, reuse.accesses, min(1.0, whole.stack.first / expected), whole.rate, table)


def _ratios(sample: Sample, accesses: int, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the miss ratios at some sizes in pages.

    A sample has more or fewer accesses than its share, as it has popular pages or not: the difference is taken for
    hits in the smallest memory (SHARDS-adj, section 3.3 of the paper).
    """
    expected = sample.rate * accesses
    hits = np.cumsum(sample.stack.hits)
    positions = np.minimum((sizes * sample.rate).astype(np.int64), len(hits) - 1)
    ratios = 1 - (hits[positions] + expected - sample.accesses) / expected
    return np.clip(ratios, 0.0, 1.0)


def draw(curves: list[MissRatios], ax: Axes) -> None:
    """Draw curves against the size of memory; a band of two standard errors where they are estimates."""
    for curve, colour in zip(curves, PALETTE * (1 + len(curves) // len(PALETTE)), strict=False):
        table = curve.table
        ax.plot(table["bytes"], table["miss_ratio"], color=colour, label=curve.name)
        if curve.rate < 1:
            low, high = (table["miss_ratio"] + sign * 2 * table["error"] for sign in (-1, 1))
            ax.fill_between(table["bytes"], low.clip(0, 1), high.clip(0, 1), color=colour, alpha=0.25, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda size, _: format_size(int(size))))
    ax.set_ylim(0, None)
    ax.set_xlabel("memory")
    ax.set_ylabel("share of accesses that miss")
    ax.grid(axis="y")
    ax.legend()
