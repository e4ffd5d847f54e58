"""Parquet tables: a column of addresses, and perhaps one of kinds and one of counts, named as in `csv`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vmsim.errors import InputError
from vmsim.workloads.readers.accesses import kind_of, signed
from vmsim.workloads.readers.csv import columns_of
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import PAGE, Chunk, Kind

__all__ = ["read", "sniff"]

_MOST = (1 << 31) - 1


def sniff(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a Parquet file."""
    return head.startswith(b"PAR1")


def read(path: Path, *, granule: int = PAGE, fetch: bool = False) -> Iterator[Chunk]:
    """Read a table, batch by batch.

    Raises
    ------
    InputError
        The file is damaged, a column is missing, or a cell is empty or no address, kind or count; the message has its
        row, from 0.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    builder = RunBuilder(granule)
    first = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = list(file.schema_arrow.names)
            columns = columns_of(names, str(path))
            wanted = {key: names[at] for key, at in columns.items()}
            for batch in file.iter_batches(batch_size=1 << 16, columns=list(wanted.values())):
                cells = {key: batch.column(name) for key, name in wanted.items()}
                yield from _add(builder, cells, f"{path}: row", first, fetch)
                first += batch.num_rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable Parquet file, after row {first}: {error}.") from error
    yield from builder.rest()


def _add(builder: RunBuilder, cells: dict[str, Any], where: str, first: int, fetch: bool) -> list[Chunk]:
    for key, column in cells.items():
        if column.null_count:
            raise InputError(f"{where} {first} to {first + len(column) - 1}: {key} is empty in {column.null_count}.")
    address = signed(
        _integers(cells["address"], "address", where).astype(np.uint64), None, lambda at: f"{where} {first + at}"
    )
    runs = len(address)
    kind = _kinds(cells["kind"], where, first) if "kind" in cells else np.zeros(runs, np.uint8)
    count = _integers(cells["count"], "count", where) if "count" in cells else np.ones(runs, np.int64)
    wrong = np.flatnonzero((count < 1) | (count > _MOST))
    if len(wrong):
        raise InputError(f"{where} {first + wrong[0]}: count = {count[wrong[0]]}: expected 1 to {_MOST}.")
    kept = slice(None) if fetch else kind != Kind.FETCH
    return builder.add(address[kept], count[kept].astype(np.int32), kind[kept])


def _integers(column: Any, what: str, where: str) -> Any:
    import pyarrow as pa

    if not pa.types.is_integer(column.type):
        raise InputError(f"{where}s: {what} is of type {column.type}: expected whole numbers.")
    return column.to_numpy(zero_copy_only=False)


def _kinds(column: Any, where: str, first: int) -> Any:
    import pyarrow as pa

    if pa.types.is_integer(column.type):
        kind = column.to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero((kind < 0) | (kind > Kind.FETCH))
        if len(wrong):
            raise InputError(f"{where} {first + wrong[0]}: kind = {kind[wrong[0]]}: expected 0, 1 or 2.")
        return kind.astype(np.uint8)
    words = column.to_pylist()
    return np.array([kind_of(str(word), f"{where} {first + at}") for at, word in enumerate(words)], np.uint8)
