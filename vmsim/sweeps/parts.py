"""Parquet parts: the rows of a run of points, the same bytes for the same rows."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vmsim.base.errors import InputError
from vmsim.base.files import printable, read_bytes, replacing
from vmsim.record.arrow import TYPES, schema
from vmsim.record.columns import COLUMNS, POINT
from vmsim.record.tables import TABLES
from vmsim.sweeps.spec import SAME

__all__ = [
    "DESCRIBED",
    "FAILURES",
    "FAILURE_COLUMNS",
    "FORMAT",
    "PART",
    "RESULTS",
    "Part",
    "PartFile",
    "as_columns",
    "as_table",
    "columns_of",
    "durable",
    "encoded",
    "identities_of",
    "list_parts",
    "part_of",
    "read_part",
    "read_part_bytes",
    "result_columns",
    "write_bytes",
    "write_table",
]

FORMAT: Final = "vmsim sweep 1"
RESULTS: Final = "results"
FAILURES: Final = "failures"
PART: Final = 2048
"""Points in a part: its bytes depend on it."""
_KEY: Final = b"vmsim"
_LARGEST: Final = 1 << 30
_PART: Final = re.compile(r"part-([0-9]{4})-([0-9]{6})\.parquet", re.ASCII)
_KINDS: Final = {kind: name for name, kind in TYPES.items()}
DESCRIBED: Final = {**POINT, **COLUMNS["summary"]}
"""What the columns of a sweep's tables mean, but for those of what is varied."""
FAILURE_COLUMNS: Final = {"point": "str", "replicate": "int64", "seed": "int64", "failure": "str"}


class Part(NamedTuple):
    """A part by its place: the generation of points it belongs to, and its number in it."""

    generation: int
    number: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"part-{self.generation:04d}-{self.number:06d}.parquet"


def result_columns(varied: Mapping[str, str], figures: Iterable[str] = ()) -> dict[str, str]:
    """Return all columns of results, with their kinds, from those of what is varied and the names of figures."""
    axes = {name: kind for name, kind in varied.items() if name not in SAME}
    counted = dict.fromkeys(figures, "int64")
    return {"point": "str", "replicate": "int64", "seed": "int64", **axes, **TABLES["summary"][0], **counted}


def list_parts(folder: Path) -> dict[Part, Path]:
    """Return the parts in a folder, in order; a name that is no part's is none of ours."""
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be read: {error.strerror or error}.") from error
    return {part: folder / name for name in names if (part := part_of(name)) is not None}


def part_of(name: str) -> Part | None:
    """Return the part that has a name; None if it is no part's."""
    match = _PART.fullmatch(name)
    return Part(int(match[1]), int(match[2])) if match else None


def as_table(columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """Return rows as a table of Arrow.

    Raises
    ------
    InputError
        They do not fit the columns.
    """
    try:
        form = schema(columns, DESCRIBED)
        lists: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [[] for _ in columns]
        arrays = [pa.array(values, field.type) for values, field in zip(lists, form, strict=True)]
    except (pa.ArrowException, KeyError, ValueError, TypeError, OverflowError) as error:
        raise InputError(f"rows that do not fit their columns: {error}") from error
    return pa.table(arrays, schema=form)


def encoded(table: pa.Table, facts: Mapping[str, Any] | None = None) -> bytes:
    """Return a table as a Parquet file, whose pages have checksums; with facts, it is a part."""
    text = json.dumps({"format": FORMAT, **(facts or {})}, sort_keys=True, separators=(",", ":"))
    table = table.replace_schema_metadata({_KEY: text.encode()} if facts is not None else None)
    made = pa.BufferOutputStream()
    pq.write_table(table, made, compression="zstd", compression_level=3, write_page_checksum=True)
    data: bytes = made.getvalue().to_pybytes()
    return data


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, safe from a loss of power.

    Raises
    ------
    InputError
        The folder cannot be written, or the disk is full.
    """
    with durable(path) as temporary, temporary.open("wb") as file:
        file.write(data)


@contextmanager
def durable(path: Path) -> Iterator[Path]:
    """Give a temporary name, as `vmsim.base.files.replacing` does, and see that what was written is on the disk."""
    with replacing(path, clear=False) as temporary:
        yield temporary
        _sync(temporary)
    try:
        _sync(path.parent)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that syncs no folders
            raise InputError(f"{printable(path)}: cannot be written: {error.strerror or error}.") from error


class PartFile:
    """A part that has been read: bytes that are what the manifest says, or are looked at for whether they are whole.

    Parameters
    ----------
    path : Path
        Where the bytes are from.
    data : bytes
    part : Part, optional
        That it must be.

    Attributes
    ----------
    facts : dict
        That stand in it.
    columns : dict of str to str
        Its columns with their kinds.

    Raises
    ------
    InputError
        It is damaged, or no part of a sweep, or another part.
    """

    def __init__(self, path: Path, data: bytes, part: Part | None = None) -> None:
        self.path = path
        self.data = data
        try:
            self._file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True)
            found = self._file.schema_arrow
        except (OSError, pa.ArrowException, ValueError) as error:
            raise InputError(f"{printable(path)}: damaged, or no part of a sweep: {error}") from error
        names = found.names
        if any(field.type not in _KINDS for field in found) or "point" not in names or len({*names}) < len(names):
            raise InputError(f"{printable(path)}: has columns that a sweep does not have.")
        self.columns = columns_of(found)
        self.facts = _facts(found, path)
        if part is not None and any(self.facts.get(key, value) != value for key, value in part._asdict().items()):
            raise InputError(f"{printable(path)}: this is another part, which had another name.")

    @property
    def sha256(self) -> str:
        """Digest of the file, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return int(self._file.metadata.num_rows)

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """Return the rows, of some columns or all; the checksum of every page is compared.

        Raises
        ------
        InputError
            A page is damaged.
        """
        try:
            table = self._file.read(columns, use_threads=False)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise InputError(f"{printable(self.path)}: damaged: {error}") from error
        missing = [name for name in table.column_names if table[name].null_count]
        if missing:
            raise InputError(f"{printable(self.path)}: column {missing[0]}: expected a value in each row.")
        return table

    def points(self) -> np.ndarray[Any, np.dtype[np.bytes_]]:
        """Return the points of its rows as `identities_of` does.

        Raises
        ------
        InputError
            A page is damaged, or something in the column is no SHA-256.
        """
        try:
            return identities_of(self.table(["point"]))
        except InputError as error:
            raise InputError(f"{printable(self.path)}: {error}") from error


def read_part_bytes(path: Path) -> bytes:
    """Return the bytes of a part, which must be an ordinary file and no link.

    Raises
    ------
    InputError
        It is neither, or cannot be read.
    """
    return read_bytes(path, "part of a sweep", limit=_LARGEST, links=False)


def read_part(path: Path, columns: list[str] | None = None) -> tuple[pa.Table, dict[str, Any]]:
    """Return the rows of a part (of some columns, or all) that is whole in itself, and the facts that stand in it.

    Whether it is the part that was written, only the manifest can say: `vmsim.sweeps.reader` asks it.

    Raises
    ------
    InputError
        It is damaged, or no part of a sweep.
    """
    found = PartFile(path, read_part_bytes(path))
    return found.table(columns), found.facts


def write_table(path: Path, table: pa.Table, facts: Mapping[str, Any] | None = None) -> None:
    """Write a table as a Parquet file, whole or not at all; with facts, it is a part.

    Raises
    ------
    InputError
        The folder cannot be written, or the disk is full.
    """
    write_bytes(path, encoded(table, facts))


def columns_of(schema: pa.Schema) -> dict[str, str]:
    """Return the columns of a table with their kinds."""
    return {field.name: _KINDS[field.type] for field in schema}


def as_columns(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """Return a table with its columns in another order, or of wider kinds."""
    return table.select(list(columns)).cast(schema(columns, DESCRIBED))


def _facts(schema: pa.Schema, path: Path) -> dict[str, Any]:
    try:
        facts = json.loads((schema.metadata or {})[_KEY])
        form, points = facts["format"], facts["points"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{printable(path)}: no part of a sweep: {error}") from error
    if form != FORMAT or type(points) is not int:
        raise InputError(f"{printable(path)}: expected a part of a {FORMAT!r}.")
    return dict(facts)


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
