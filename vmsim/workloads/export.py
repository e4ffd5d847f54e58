"""From any trace format to `.vmtrace`, and from there to files for other tools."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vmsim.base.errors import InputError
from vmsim.base.files import printable, replacing
from vmsim.base.progress import Progress
from vmsim.workloads import readers
from vmsim.workloads.columns import encode
from vmsim.workloads.readers import Notes
from vmsim.workloads.runs import check_granule
from vmsim.workloads.stream import PAGE, Chunk, Kind
from vmsim.workloads.summary import Summary
from vmsim.workloads.vmtrace import Vmtrace, VmtraceWriter

__all__ = ["LARGEST", "describe", "export"]

LARGEST = 4 << 30  # bytes of a file for other tools, unless more is asked for
_KINDS = np.array([kind.name.lower() for kind in Kind])
_AT_ONCE = 1 << 20  # addresses expanded at a time, whatever the runs' counts
_ROWS = 1 << 14  # rows made into text at a time


def export(
    source: Path,
    target: Path,
    *,
    form: str = "auto",
    fetch: bool = False,
    granule: int = PAGE,
    force: bool = True,
    largest: int = LARGEST,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Convert a trace; the target's suffix says to what: .vmtrace, .u64, .csv or .parquet.

    A `.u64` file holds one address per access, a `.csv` or `.parquet` file one row per run: address, kind, count.
    These formats have no events.

    Parameters
    ----------
    source, target : Path
    form : str
        The source's format, or "auto".
    fetch : bool
        Keep instruction fetches.
    granule : int
        Bytes of a block.
    force : bool
        Replace a file that is at `target`.
    largest : int
        Bytes that a .u64, .csv or .parquet file may have: a few runs of many accesses can make a very large one.
    progress : callable, optional
        Called chunk by chunk; see `vmsim.base.progress.Progress`.

    Returns
    -------
    dict
        The totals, as in a .vmtrace's footer; `left_out`: what of the source the target does not hold, by name; of a
        table, `columns` and `unused_columns`.

    Raises
    ------
    InputError
        The source cannot be read, holds no access, or the target cannot be written, is there already, would be too
        large, or has another suffix. Nothing is left at the target then.
    """
    check_granule(granule)
    writers: dict[str, Callable[..., None]] = {".u64": _u64, ".csv": _csv, ".parquet": _parquet}
    suffix = target.suffix.lower()
    if suffix != ".vmtrace" and suffix not in writers:
        raise InputError(f"{printable(target)}: expected a name that ends in .vmtrace, {', '.join(writers)}.")
    notes = Notes()
    form = readers.detect(source) if form == "auto" else form
    about, total = _about(source, form, fetch)
    chunks = _pages_noticed(readers.read(source, form, granule=granule, fetch=fetch, notes=notes), source, granule)
    with replacing(target, force=force) as temporary, temporary.open("wb") as file:
        if suffix == ".vmtrace":
            writer = VmtraceWriter(file, granule=granule, about=about | {"source": source.name, "fetch": fetch})
            for chunk in chunks:
                writer.add(chunk)
                if progress:
                    progress("", writer.summary.accesses, total)
            summary = writer.summary
        else:
            summary = Summary()
            counted = _counted(chunks, summary, granule, progress, total)
            writers[suffix](file, _bounded(counted, file, target, summary, suffix == ".u64", largest))
        if not summary.accesses:
            raise InputError(f"{printable(source)}: the trace holds no access: expected at least one.")
        if suffix == ".vmtrace":
            writer.close()
    totals = summary.totals()
    if suffix != ".vmtrace":
        notes.drop("operations", sum(totals["events"].values()))
    if suffix == ".u64":
        notes.drop("kinds of accesses", totals["writes"] + totals["fetches"])
    return totals | notes.told()


def describe(path: Path, form: str = "auto") -> dict[str, Any]:
    """Return what is to be known of a trace: its totals, and what its header says.

    A `.vmtrace` is not decoded for it; a trace of another format is read through, and `replayed` says how many of its
    accesses a run makes of the file as it is.

    Raises
    ------
    InputError
        The trace cannot be read, or holds no access.
    """
    form = readers.detect(path) if form == "auto" else form
    told: dict[str, Any] = {"path": str(path), "format": form, "bytes": path.stat().st_size}
    if form == "vmtrace":
        trace = Vmtrace.open(path)
        told = trace.about | told | {"granule": trace.granule, "replayed": trace.totals["accesses"]}
        told |= trace.totals | {"regions": len(trace.regions[0]), "chunks": len(trace.index)}
    else:
        summary, notes = Summary(), Notes()
        for _ in _counted(readers.read(path, form, fetch=True, notes=notes), summary, PAGE):
            pass
        totals = summary.totals()
        told |= {"granule": PAGE, "replayed": totals["accesses"] - totals["fetches"]}
        told |= totals | notes.told() | {"regions": len(summary.regions()[0])}
    if not told["accesses"]:
        raise InputError(f"{printable(path)}: the trace holds no access: expected at least one.")
    return told


def _about(source: Path, form: str, fetch: bool) -> tuple[dict[str, Any], int]:
    """Return what the source's own header says, so that it is not lost, and its accesses; 0: it does not say."""
    if form != "vmtrace":
        return {"tool": form}, 0
    trace = Vmtrace.open(source)
    return dict(trace.about), trace.totals["accesses"] - (0 if fetch else trace.totals["fetches"])


def _pages_noticed(chunks: Iterator[Chunk], source: Path, granule: int) -> Iterator[Chunk]:
    """Pass chunks on; warn at the end if they were to be lines and every address begins a page."""
    by_pages, pages = granule != PAGE, 0
    for chunk in chunks:
        by_pages = by_pages and not (chunk.address % PAGE).any()
        pages += len(chunk.address)
        yield chunk
    if by_pages and pages > 1:
        warnings.warn(
            f"{printable(source)}: every address in it begins a page of {PAGE} bytes: it was recorded by pages, and "
            f"blocks of {granule} bytes say no more.",
            UserWarning,
            stacklevel=2,
        )


def _counted(
    chunks: Iterator[Chunk], summary: Summary, granule: int, progress: Progress | None = None, total: int = 0
) -> Iterator[Chunk]:
    shift = granule.bit_length() - 1
    for chunk in chunks:
        summary.add(chunk, encode(chunk, shift).rank)
        if progress:
            progress("", summary.accesses, total)
        yield chunk


def _bounded(
    chunks: Iterator[Chunk], file: BinaryIO, target: Path, summary: Summary, words: bool, largest: int
) -> Iterator[Chunk]:
    """Pass chunks on while the file stays below `largest`; the size of words is known before they are written."""
    for chunk in chunks:
        size = 8 * summary.accesses if words else file.tell()
        if size > largest:
            raise InputError(
                f"{printable(target)}: it would have {size:,} bytes or more: expected at most {largest:,}. Give "
                "--max-size if you want so large a file, or convert to .vmtrace."
            )
        yield chunk


def _u64(file: BinaryIO, chunks: Iterator[Chunk]) -> None:
    for chunk in chunks:
        ends = np.cumsum(chunk.count, dtype=np.int64)
        total = int(ends[-1]) if len(ends) else 0
        for first in range(0, total, _AT_ONCE):
            access = np.arange(first, min(first + _AT_ONCE, total), dtype=np.int64)
            run = np.searchsorted(ends, access, side="right")
            file.write(chunk.address[run].astype("<u8").tobytes())


def _csv(file: BinaryIO, chunks: Iterator[Chunk]) -> None:
    file.write(b"address,kind,count\n")
    for chunk in chunks:
        for first in range(0, len(chunk.address), _ROWS):
            part = slice(first, first + _ROWS)
            address = chunk.address[part].view(np.uint64).tolist()
            rows = zip(address, _KINDS[chunk.kind[part]].tolist(), chunk.count[part].tolist(), strict=True)
            file.write("".join(f"{address:#x},{kind},{count}\n" for address, kind, count in rows).encode())


def _parquet(file: BinaryIO, chunks: Iterator[Chunk]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("address", pa.int64()), ("kind", pa.uint8()), ("count", pa.int32())])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for chunk in chunks:
            columns = [pa.array(column) for column in (chunk.address, chunk.kind, chunk.count)]
            writer.write_table(pa.table(columns, schema=schema))
