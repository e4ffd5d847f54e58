"""Parquet parts: the rows of a run of points, the same bytes for the same rows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vmsim.errors import InputError
from vmsim.files import replacing
from vmsim.record.tables import TABLES

__all__ = [
    "FAILURES",
    "FAILURE_COLUMNS",
    "FORMAT",
    "PART",
    "RESULTS",
    "Part",
    "as_columns",
    "as_table",
    "columns_of",
    "durable",
    "identities_of",
    "list_parts",
    "part_facts",
    "read_part",
    "read_schema",
    "result_columns",
    "write_part",
    "write_table",
]

FORMAT: Final = "vmsim sweep 1"
RESULTS: Final = "results"
FAILURES: Final = "failures"
PART: Final = 2048
"""Points in a part: its bytes depend on it."""
_KEY: Final = b"vmsim"
_PART: Final = re.compile(r"part-([0-9]{4})-([0-9]{6})\.parquet")
_TYPES: Final[dict[str, pa.DataType]] = {
    "str": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}
_KINDS: Final = {kind: name for name, kind in _TYPES.items()}
FAILURE_COLUMNS: Final = {"point": "str", "replicate": "int64", "seed": "int64", "failure": "str"}


class Part(NamedTuple):
    """A part by its place: the generation of points it belongs to, and its number in it."""

    generation: int
    number: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"part-{self.generation:04d}-{self.number:06d}.parquet"


def result_columns(varied: Mapping[str, str]) -> dict[str, str]:
    """Return all columns of results, with their kinds, from those of what is varied."""
    axes = {name: kind for name, kind in varied.items() if name != "seed"}
    return {"point": "str", "replicate": "int64", "seed": "int64", **axes, **TABLES["summary"][0]}


def list_parts(folder: Path) -> dict[Part, Path]:
    """Return the parts in a folder, in order; a name that is no part's is none of ours."""
    if not folder.is_dir():
        return {}
    found = {}
    for name in sorted(os.listdir(folder)):
        match = _PART.fullmatch(name)
        if match:
            found[Part(int(match[1]), int(match[2]))] = folder / name
    return found


def write_part(path: Path, columns: Mapping[str, str], rows: Sequence[Sequence[Any]], facts: Mapping[str, Any]) -> None:
    """Write a part, whole or not at all.

    Raises
    ------
    InputError
        The folder cannot be written, or the disk is full.
    """
    try:
        table = as_table(columns, rows)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    write_table(path, table, facts)


def as_table(columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Return rows as a table of Arrow.

    Raises
    ------
    InputError
        They do not fit the columns.
    """
    try:
        schema = pa.schema([(name, _TYPES[kind]) for name, kind in columns.items()])
        lists: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [[] for _ in columns]
        arrays = [pa.array(values, field.type) for values, field in zip(lists, schema, strict=True)]
    except (pa.ArrowException, KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"rows that do not fit their columns: {error}") from error
    return pa.table(arrays, schema=schema)


def write_table(path: Path, table: pa.Table, facts: Mapping[str, Any] | None = None) -> None:
    """Write a table as a Parquet file, whole or not at all, safe from a loss of power; with facts, it is a part."""
    text = json.dumps({"format": FORMAT, **(facts or {})}, sort_keys=True, separators=(",", ":"))
    table = table.replace_schema_metadata({_KEY: text.encode()} if facts is not None else None)
    with durable(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=3, write_page_checksum=True)


@contextmanager
def durable(path: Path) -> Iterator[Path]:
    """Give a temporary name, as `vmsim.files.replacing` does, and see that what was written is on the disk."""
    with replacing(path) as temporary:
        yield temporary
        _sync(temporary)
    _sync(path.parent)


def read_part(path: Path, columns: list[str] | None = None, *, check: bool = False) -> tuple[pa.Table, dict[str, Any]]:
    """Return the rows of a part (of some columns, or all), and the facts that stand in it.

    Parameters
    ----------
    path : Path
    columns : list of str, optional
        All if left out.
    check : bool, optional
        Compare the checksum of every page.

    Raises
    ------
    InputError
        It is damaged, or no part of a sweep.
    """
    try:
        data = pa.BufferReader(path.read_bytes())
        table = pq.read_table(data, columns=columns, page_checksum_verification=check)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{path}: damaged, or no part of a sweep: {error}") from error
    return table, _facts(_checked(table.schema, path), path)


def part_facts(path: Path) -> dict[str, Any]:
    """Return the facts that stand in a part.

    Raises
    ------
    InputError
        It is damaged, or no part of a sweep.
    """
    return _facts(_schema(path), path)


def read_schema(path: Path) -> pa.Schema:
    """Return the columns of a part, without reading it.

    Raises
    ------
    InputError
        It is damaged, or no part of a sweep.
    """
    schema = _schema(path)
    _facts(schema, path)
    return _checked(schema, path)


def columns_of(schema: pa.Schema) -> dict[str, str]:
    """Return the columns of a table with their kinds."""
    return {field.name: _KINDS[field.type] for field in schema}


def as_columns(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """Return a table with its columns in another order, or of wider kinds."""
    return table.select(list(columns)).cast(pa.schema([(name, _TYPES[kind]) for name, kind in columns.items()]))


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{path}: damaged, or no part of a sweep: {error}") from error


def _facts(schema: pa.Schema, path: Path) -> dict[str, Any]:
    try:
        facts = json.loads((schema.metadata or {})[_KEY])
        form, points = facts["format"], facts["points"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: no part of a sweep: {error}") from error
    if form != FORMAT or not isinstance(points, int):
        raise InputError(f"{path}: expected a part of a {FORMAT!r}.")
    return dict(facts)


def _checked(schema: pa.Schema, path: Path) -> pa.Schema:
    if any(field.type not in _KINDS for field in schema) or "point" not in schema.names:
        raise InputError(f"{path}: has columns that a sweep has not.")
    return schema


def identities_of(table: pa.Table) -> np.ndarray[Any, np.dtype[np.bytes_]]:
    """Return the points of a table as 32-byte texts, in the order of their first rows.

    Raises
    ------
    InputError
        Something in the column is no SHA-256.
    """
    hexes: dict[Any, None] = dict.fromkeys(table["point"].to_pylist())
    try:
        raw = bytes.fromhex("".join(hexes))
    except (ValueError, TypeError) as error:
        raise InputError("the column point has something that is not a SHA-256") from error
    if any(len(each) != 64 for each in hexes):
        raise InputError("the column point has something that is not a SHA-256")
    return np.frombuffer(raw, "S32")


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
