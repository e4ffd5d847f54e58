"""Comma-separated text: a column of addresses, and perhaps one of kinds, one of sizes and one of counts.

The first line names the columns; without names they are address, kind, count, in this order. Addresses, sizes and
counts are decimal, or hexadecimal after 0x; kinds are words, letters or the numbers 0, 1, 2. Cells may be quoted (RFC
4180); pyarrow parses them. An access over the end of a block is one access to each block.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.workloads.opening import first_lines, opened, shown
from vmsim.workloads.readers.accesses import kind_of
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.readers.tables import NAMES, columns_of, runs_of
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import PAGE, Chunk

__all__ = ["ENDINGS", "read", "sniff"]

ENDINGS = (".csv",)  # of files' names

_NUMBER = "0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}"
_THOUSANDS = "^[0-9]{1,3}(,[0-9]{3})+$"
_PLAIN = re.compile(_NUMBER)
_BLOCK = 1 << 22  # bytes of text at a time
_LONGEST = 1 << 20  # bytes of a line
_WIDEST = 4096  # columns
_SEPARATORS = {b";": "semicolons", b"\t": "tabs", b"|": "bars"}  # of tables that are no comma-separated text


def sniff(head: bytes) -> bool:
    """Return whether a file that begins with `head` looks like one of these tables."""
    lines = first_lines(head)
    try:
        cells = [cell.lower() for cell in _cells(lines[0])] if lines else []
    except csv.Error:
        return False
    return bool(cells) and (
        cells[0] in NAMES["address"]
        or (len(cells) > 1 and bool(set(cells) & set(NAMES["address"])))
        or (cells[0].startswith("0x") and bool(_PLAIN.fullmatch(cells[0])))
    )


def read(path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None) -> Iterator[Chunk]:
    """Read a table.

    Raises
    ------
    InputError
        A column is missing or there twice, a row has more or fewer cells than the first, a quote is not closed, or a
        cell is no number or kind; the message has the line.
    """
    name = printable(path)
    notes = notes or Notes()
    builder = RunBuilder(granule)
    names: list[str] | None = None
    columns: dict[str, int] = {}
    with opened(path, text=True) as file:
        for line, block in _blocks(file, name):
            if names is None:
                names, columns, line, block = _header(block, line, name, notes)
            if not block.strip():
                continue
            where = _Where(name, line, block)
            cells = _parse(block, len(names), columns, where)
            yield from runs_of(builder, cells, where, granule=granule, fetch=fetch, notes=notes)
    yield from builder.rest()


class _Where:
    """Names the rows of a block by their lines; found only when they are asked for."""

    def __init__(self, name: str, line: int, block: bytes) -> None:
        self._name = name
        self._line = line
        self._block = block

    def __call__(self, row: int) -> str:
        place = next((line for at, (line, _) in enumerate(self._rows()) if at == row), None)
        if place is None:
            return f"{self._name}: after line {self._line}"
        return f"{self._name}: line {self._line + place}"

    def ragged(self, width: int) -> InputError | None:
        """Return the message about the first row that does not have `width` cells, if there is one."""
        for place, cells in self._rows():
            if len(cells) != width:
                return InputError(
                    f"{self._name}: line {self._line + place}: expected {width} cells as in the first line, found "
                    f"{len(cells)}."
                )
        return None

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Give the line, from 0, in which each row begins, and its cells; none after text that is no such row."""
        reader = csv.reader(io.StringIO(self._block.decode("latin-1"), newline=""))
        line = 0
        with suppress(csv.Error):  # a cell beyond this reader's limit: no row after it is named
            for cells in reader:
                if cells:
                    yield line, cells
                line = reader.line_num


def _blocks(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Give (number of the first line, from 1; whole rows), block by block; a row may have line ends within quotes."""
    line, tail = 1, b""
    while block := file.read(_BLOCK):
        data = tail + block
        # before the last quote that is open, there are whole rows
        end = data.rfind(b'"') if data.count(b'"') % 2 else len(data)
        whole = data.rfind(b"\n", 0, end) + 1
        tail = data[whole:]
        if len(tail) > _BLOCK + _LONGEST or (not whole and len(tail) > _LONGEST):
            raise InputError(
                f"{name}: line {line + data.count(10, 0, whole)}: it is longer than {_LONGEST} bytes, or a quote that "
                "is opened there is not closed."
            )
        if whole:
            yield line, data[:whole]
            line += data.count(b"\n", 0, whole)
    if tail.count(b'"') % 2:
        raise InputError(f"{name}: line {line}: a quote is opened and not closed: {shown(tail)}.")
    if tail:
        yield line, tail


def _header(block: bytes, line: int, name: str, notes: Notes) -> tuple[list[str], dict[str, int], int, bytes]:
    """Return the columns' names, the known ones' places, and the block with the number of its first line."""
    while True:
        first, _, rest = block.partition(b"\n")
        if first.strip() or not rest:
            break
        line, block = line + 1, rest
    where = f"{name}: line {line}"
    if b"\r" in first.rstrip(b"\r"):
        raise InputError(f"{where}: a carriage return within a line: expected lines that end with a line feed.")
    try:
        cells = _cells(first)
    except csv.Error as error:
        raise InputError(f"{where}: {shown(first)}: not a row of comma-separated cells: {error}.") from error
    if len(cells) > _WIDEST:
        raise InputError(f"{where}: {len(cells)} columns: expected at most {_WIDEST}.")
    other = next((what for mark, what in _SEPARATORS.items() if mark in first and len(cells) == 1), None)
    if other:
        raise InputError(f"{where}: {shown(first)}: the cells are separated by {other}: expected commas.")
    if not cells or not _PLAIN.fullmatch(cells[0]):
        return cells, columns_of(cells, where, notes), line + 1, rest
    if len(cells) > 1 and cells[1][:2].lower() == "0x" and cells[0][:2].lower() != "0x":
        raise InputError(
            f"{where}: {shown(first)}: the first column looks like an index, and without names it is the addresses: "
            "name the columns in a first line, as 'index,address,kind'."
        )
    known = dict(zip(("address", "kind", "count"), range(len(cells)), strict=False))
    notes.columns = {what: f"column {at + 1}" for what, at in known.items()}
    notes.unused = [f"column {at + 1}" for at in range(len(known), len(cells))][:100]
    return [str(at) for at in range(len(cells))], known, line, block


def _cells(line: bytes) -> list[str]:
    text = line.removesuffix(b"\r").decode("utf-8", "backslashreplace")
    return [cell.strip(" \t'") for cell in next(csv.reader([text], strict=True), [])]


def _parse(block: bytes, width: int, columns: dict[str, int], where: _Where) -> dict[str, Any]:
    """Return the known columns of a block of rows as numpy arrays."""
    import pyarrow as pa
    import pyarrow.csv as pc

    wanted = {what: str(at) for what, at in columns.items()}
    try:
        table = pc.read_csv(
            pa.BufferReader(block),  # type: ignore[arg-type]  # the stubs do not know it
            read_options=pc.ReadOptions(
                use_threads=False, block_size=len(block) + 1, column_names=[str(at) for at in range(width)]
            ),
            parse_options=pc.ParseOptions(newlines_in_values=True),
            convert_options=pc.ConvertOptions(
                include_columns=list(wanted.values()),
                column_types={name: pa.string() for name in wanted.values()},
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise where.ragged(width) or InputError(
            f"{where(0)} and on: not rows of comma-separated cells: {' '.join(str(error).split())}."
        ) from error
    found: dict[str, Any] = {}
    for what, name in wanted.items():
        column = table.column(name).combine_chunks()
        found[what] = _kinds(column, where) if what == "kind" else _numbers(column, what, where)
    return found


def _numbers(column: Any, what: str, where: _Where) -> Any:
    """Return cells of decimal or hexadecimal digits as uint64."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pc.utf8_trim(column, " \t'")
    grouped = pc.match_substring_regex(column, _THOUSANDS)
    if pc.any(grouped).as_py():
        column = pc.if_else(grouped, pc.replace_substring(column, ",", ""), column)
    good = pc.match_substring_regex(column, f"^({_NUMBER})$").to_numpy(zero_copy_only=False)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        cell = column[at].as_py()
        raise InputError(f"{where(at)}: {what} {cell[:20]!r}: expected a number, decimal or hexadecimal after 0x.")
    try:
        return pc.cast(column, pa.uint64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        at = next(at for at, cell in enumerate(column.to_pylist()) if int(cell, 0 if "x" in cell.lower() else 10) >> 64)
        raise InputError(f"{where(at)}: {what} {column[at]}: expected at most {(1 << 64) - 1}.") from None


def _kinds(column: Any, where: _Where) -> Any:
    words = column.dictionary_encode()
    place = words.indices.to_numpy(zero_copy_only=False)
    known = words.dictionary.to_pylist()
    kinds = np.empty(len(known), np.uint8)
    for number, word in enumerate(known):
        try:
            kinds[number] = kind_of(word.strip(" \t'"), "")
        except InputError:
            kinds[number] = kind_of(word, where(int(np.argmax(place == number))))
    return kinds[place]
