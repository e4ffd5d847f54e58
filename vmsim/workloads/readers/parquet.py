"""Parquet tables: a column of addresses, and perhaps ones of kinds, sizes and counts, named as in `tables`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.workloads.opening import seekable
from vmsim.workloads.readers.accesses import kind_of
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.readers.tables import columns_of, runs_of
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import PAGE, Chunk, Kind

__all__ = ["ENDINGS", "read", "sniff"]

ENDINGS = (".parquet",)  # of files' names

_LARGEST_PART = 1 << 28  # bytes of a column in a row group, unpacked
_THINNEST = 1000  # times that a column of that size may shrink: real addresses do not


def sniff(head: bytes) -> bool:
    """Return whether a file that begins with `head` is a Parquet file."""
    return head.startswith(b"PAR1")


def read(path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None) -> Iterator[Chunk]:
    """Read a table, batch by batch.

    Raises
    ------
    InputError
        The file is damaged, a column is missing or there twice, or a cell is empty or no address, kind, size or
        count; the message has its row, from 0.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = printable(path)
    notes = notes or Notes()
    builder = RunBuilder(granule)
    first = 0
    with seekable(path) as file:
        try:
            with pq.ParquetFile(file) as table:
                wanted = _wanted(table, name, notes)
            file.seek(0)
            words = [wanted["kind"]] if "kind" in wanted else None
            with pq.ParquetFile(file, page_checksum_verification=True, read_dictionary=words) as table:
                for batch in table.iter_batches(batch_size=1 << 16, columns=list(wanted.values())):
                    cells = {what: batch.column(column) for what, column in wanted.items()}
                    where = _Where(name, first)
                    yield from runs_of(
                        builder, _columns(cells, where), where, granule=granule, fetch=fetch, notes=notes
                    )
                    first += batch.num_rows
        except InputError:
            raise
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{name}: not a readable Parquet file, after row {first}: {_line(error)}.") from error
    yield from builder.rest()


class _Where:
    """Names rows of a batch that begins at row `first`."""

    def __init__(self, name: str, first: int) -> None:
        self.name = name
        self.first = first

    def __call__(self, row: int) -> str:
        return f"{self.name}: row {self.first + row}"


def _wanted(table: Any, name: str, notes: Notes) -> dict[str, str]:
    """Return the names of the columns to read, by what they are."""
    names = list(table.schema_arrow.names)
    described = table.schema_arrow.pandas_metadata or {}
    index = [each for each in described.get("index_columns", []) if isinstance(each, str)]
    wanted = {what: names[at] for what, at in columns_of(names, name, notes, ignored=index).items()}
    again = next((each for each in wanted.values() if names.count(each) > 1), None)
    if again is not None:
        raise InputError(f"{name}: column {again!r} is there {names.count(again)} times: expected one.")
    for group in range(table.metadata.num_row_groups):
        for at in range(table.metadata.num_columns):
            part = table.metadata.row_group(group).column(at)
            large, packed = part.total_uncompressed_size, max(1, part.total_compressed_size)
            if part.path_in_schema in wanted.values() and large > _LARGEST_PART and large // packed > _THINNEST:
                raise InputError(
                    f"{name}: column {part.path_in_schema!r} has {large:,} bytes in {packed:,} of the file in one row "
                    "group: this is no trace. Write it in smaller row groups if it is."
                )
    return wanted


def _columns(cells: dict[str, Any], where: _Where) -> dict[str, Any]:
    for what, column in cells.items():
        if column.null_count:
            last = where.first + len(column) - 1
            raise InputError(f"{where(0)} to {last}: {what} is empty in {column.null_count}.")
    found = {what: _integers(column, what, where) for what, column in cells.items() if what != "kind"}
    found["address"] = found["address"].astype(np.uint64)
    if "kind" in cells:
        found["kind"] = _kinds(cells["kind"], where)
    return found


def _integers(column: Any, what: str, where: _Where) -> Any:
    import pyarrow as pa

    if not pa.types.is_integer(column.type):
        raise InputError(f"{where.name}: rows: {what} is of type {column.type}: expected whole numbers.")
    return column.to_numpy(zero_copy_only=False)


def _kinds(column: Any, where: _Where) -> Any:
    import pyarrow as pa

    if pa.types.is_integer(column.type):
        kind = column.to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero((kind < 0) | (kind > Kind.FETCH))
        if len(wrong):
            raise InputError(f"{where(int(wrong[0]))}: kind = {kind[wrong[0]]}: expected 0, 1 or 2.")
        return kind.astype(np.uint8)
    words = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if words.dictionary.null_count:
        raise InputError(f"{where(0)} and on: a kind is empty.")
    place = words.indices.to_numpy(zero_copy_only=False)
    kinds = np.zeros(len(words.dictionary), np.uint8)
    for number in np.unique(place).tolist():
        word = str(words.dictionary[number])
        kinds[number] = kind_of(word, where(int(np.argmax(place == number))))
    return kinds[place]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
