"""From any trace format to `.vmtrace`, and from there to files for other tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vmsim.errors import InputError
from vmsim.files import replacing
from vmsim.workloads import readers
from vmsim.workloads.columns import encode
from vmsim.workloads.runs import check_granule
from vmsim.workloads.stream import PAGE, Chunk, Kind
from vmsim.workloads.summary import Summary
from vmsim.workloads.vmtrace import Vmtrace, VmtraceWriter

__all__ = ["describe", "export"]

Progress = Callable[[int], None]
_KINDS = np.array([kind.name.lower() for kind in Kind])
_AT_ONCE = 1 << 20  # addresses expanded at a time, whatever the runs' counts


def export(
    source: Path,
    target: Path,
    *,
    form: str = "auto",
    fetch: bool = False,
    granule: int = PAGE,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Convert a trace; the target's suffix says to what: .vmtrace, .u64, .csv or .parquet.

    A `.u64` file holds one address per access, a `.csv` or `.parquet` file one row per run: address, kind, count.
    These formats have no events.

    Returns
    -------
    dict
        The totals, as in a .vmtrace's footer.

    Raises
    ------
    InputError
        The source cannot be read, holds no access, or the target cannot be written or has another suffix. Nothing is
        left at the target then.
    """
    check_granule(granule)
    writers: dict[str, Callable[..., None]] = {".u64": _u64, ".csv": _csv, ".parquet": _parquet}
    suffix = target.suffix.lower()
    if suffix != ".vmtrace" and suffix not in writers:
        raise InputError(f"{target}: expected a name that ends in .vmtrace, {', '.join(writers)}.")
    chunks = readers.read(source, form, granule=granule, fetch=fetch)
    with replacing(target) as temporary, temporary.open("wb") as file:
        if suffix == ".vmtrace":
            about = _about(source, form) | {"source": source.name, "fetch": fetch}
            writer = VmtraceWriter(file, granule=granule, about=about)
            for chunk in chunks:
                writer.add(chunk)
                if progress:
                    progress(writer.summary.accesses)
            writer.close()
            summary = writer.summary
        else:
            summary = Summary()
            writers[suffix](file, _counted(chunks, summary, granule, progress))
        if not summary.accesses:
            raise InputError(f"{source}: the trace holds no access: expected at least one.")
    return summary.totals()


def describe(path: Path, form: str = "auto") -> dict[str, Any]:
    """Return what is to be known of a trace: its totals, and what its header says.

    A `.vmtrace` is not decoded for it; a trace of another format is read through.
    """
    form = readers.detect(path) if form == "auto" else form
    told: dict[str, Any] = {"path": str(path), "format": form, "bytes": path.stat().st_size}
    if form == "vmtrace":
        trace = Vmtrace.open(path)
        return told | trace.about | trace.totals | {"regions": len(trace.regions[0]), "chunks": len(trace.index)}
    summary = Summary()
    for _ in _counted(readers.read(path, form, fetch=True), summary, PAGE, None):
        pass
    return told | {"granule": PAGE} | summary.totals() | {"regions": len(summary.regions()[0])}


def _about(source: Path, form: str) -> dict[str, Any]:
    """Return what the source's own header says, so that it is not lost."""
    form = readers.detect(source) if form == "auto" else form
    return dict(Vmtrace.open(source).about) if form == "vmtrace" else {"tool": form}


def _counted(chunks: Iterator[Chunk], summary: Summary, granule: int, progress: Progress | None) -> Iterator[Chunk]:
    shift = granule.bit_length() - 1
    for chunk in chunks:
        summary.add(chunk, encode(chunk, shift).rank)
        if progress:
            progress(summary.accesses)
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
        rows = zip(chunk.address.tolist(), _KINDS[chunk.kind].tolist(), chunk.count.tolist(), strict=True)
        lines = (f"{address:#x},{kind},{count}\n" for address, kind, count in rows)
        file.write("".join(lines).encode())


def _parquet(file: BinaryIO, chunks: Iterator[Chunk]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("address", pa.int64()), ("kind", pa.uint8()), ("count", pa.int32())])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for chunk in chunks:
            columns = [pa.array(column) for column in (chunk.address, chunk.kind, chunk.count)]
            writer.write_table(pa.table(columns, schema=schema))
