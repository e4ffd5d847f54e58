"""What tables of any format share: which columns are addresses, kinds, sizes, counts, threads; what they may hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.errors import InputError
from vmsim.workloads.readers.accesses import LARGEST, Accesses, signed, split
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import Chunk, Kind

__all__ = ["NAMES", "columns_of", "runs_of"]

NAMES = {
    "address": ("address", "addr", "va", "vaddr", "gva", "virtual_address", "virtual address"),
    "kind": ("kind", "type", "op", "access", "rw", "write", "is_write", "iswrite", "is write"),
    "size": ("size", "bytes", "length", "len", "width"),
    "count": ("count", "accesses", "repeat"),
    "thread": ("thread", "tid", "thread_id", "thread id"),
}
_MOST = (1 << 31) - 1
_LIMITS = {"size": LARGEST, "count": _MOST}


def columns_of(names: Sequence[str], where: str, notes: Notes, *, ignored: Sequence[str] = ()) -> dict[str, int]:
    """Return in which places the columns stand that are known, by what they are.

    Parameters
    ----------
    names : sequence of str
        The columns' names; upper case and blanks around them do not matter.
    where : str
        For messages.
    notes : Notes
        Is told which column was taken for what.
    ignored : sequence of str
        Names that are never taken for sizes and counts: those of an index.

    Raises
    ------
    InputError
        None is of addresses, or two could be the same thing.
    """
    plain = [name.strip().lower() for name in names]
    found: dict[str, int] = {}
    for what, known in NAMES.items():
        places = [
            at for at, name in enumerate(plain) if name in known and not (what in _LIMITS and names[at] in ignored)
        ]
        if len(places) > 1:
            told = ", ".join(repr(names[at].strip()) for at in places[:4])
            raise InputError(
                f"{where}: columns {told}: each may be the {what}: expected one. Rename or remove the others."
            )
        if places:
            found[what] = places[0]
    if "address" not in found:
        told = ", ".join(name[:20] for name in plain[:8])
        raise InputError(f"{where}: columns {told!r}: expected one named {', '.join(NAMES['address'][:5])}.")
    notes.columns = {what: names[at].strip()[:60] for what, at in found.items()}
    notes.unused = [name.strip()[:60] for at, name in enumerate(names) if at not in found.values()][:100]
    return found


def runs_of(
    builder: RunBuilder,
    cells: Mapping[str, NDArray[Any]],
    where: Callable[[int], str],
    *,
    granule: int,
    fetch: bool,
    notes: Notes,
) -> Iterator[Chunk]:
    """Hand rows on to a builder of runs.

    Parameters
    ----------
    builder : RunBuilder
    cells : dict of arrays
        `address` (uint64[n]), and perhaps `kind` (uint8[n]), `size`, `count` and `thread` (integers, n each).
    where : callable
        Names row i in messages.
    granule, fetch, notes
        As of `readers.read`.

    Raises
    ------
    InputError
        An address is not canonical, or a size or count out of bounds.
    """
    rows = len(cells["address"])
    for what, most in _LIMITS.items():
        if what in cells:
            wrong = np.flatnonzero((cells[what] < 1) | (cells[what] > most))
            if len(wrong):
                at = int(wrong[0])
                raise InputError(f"{where(at)}: {what} = {cells[what][at]}: expected 1 to {most}.")
    size = cells["size"].astype(np.int64) if "size" in cells else np.ones(rows, np.int64)
    address = signed(cells["address"], size, where)
    kind = cells["kind"] if "kind" in cells else np.zeros(rows, np.uint8)
    count = cells["count"].astype(np.int32) if "count" in cells else np.ones(rows, np.int32)
    thread = cells.get("thread")
    if not fetch:
        data = kind != Kind.FETCH
        notes.drop("fetches", int(count[~data].sum(dtype=np.int64)))
        address, count, kind, size = address[data], count[data], kind[data], size[data]
        thread = thread[data] if thread is not None else None
    if "size" in cells:
        notes.drop("sizes", int(count.sum(dtype=np.int64)))
    for first, stop in _stretches(thread, len(address)):
        if thread is not None:
            builder.thread(int(thread[first]))
        part = slice(first, stop)
        for those in split(Accesses(address[part], count[part], kind[part]), size[part], granule):
            yield from builder.add(*those)


def _stretches(thread: NDArray[Any] | None, rows: int) -> Iterator[tuple[int, int]]:
    """Give the first row of each stretch of one thread, and the one after its last."""
    changes = np.flatnonzero(thread[1:] != thread[:-1]) + 1 if thread is not None else np.empty(0, np.int64)
    ends = [0, *changes.tolist(), rows] if rows else [0]
    yield from pairwise(ends)
