"""Comma-separated text: a column of addresses, and perhaps one of kinds and one of counts.

The first line names the columns; without names they are address, kind, count, in this order. Addresses and counts
are decimal, or hexadecimal after 0x; kinds are words, letters or the numbers 0, 1, 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmsim.errors import InputError
from vmsim.workloads.readers.accesses import Batch, kind_of, lines
from vmsim.workloads.readers.files import opened, shown
from vmsim.workloads.stream import PAGE, Chunk, Kind

__all__ = ["NAMES", "columns_of", "read", "sniff"]

NAMES = {
    "address": ("address", "addr", "va", "vaddr", "gva", "virtual_address", "virtual address"),
    "kind": ("kind", "type", "op", "access", "rw", "is_write"),
    "count": ("count", "accesses", "n", "repeat"),
}
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")
_MOST = (1 << 31) - 1


def columns_of(names: Sequence[str], where: str) -> dict[str, int]:
    """Return at which place stand the columns that we know; InputError if there is none of addresses."""
    plain = [name.strip().lower() for name in names]
    found = {
        column: next(at for at, name in enumerate(plain) if name in known)
        for column, known in NAMES.items()
        if set(plain) & set(known)
    }
    if "address" not in found:
        told = ", ".join(name[:20] for name in plain[:8])
        raise InputError(f"{where}: columns {told!r}: expected one named {', '.join(NAMES['address'][:5])}.")
    return found


def sniff(head: bytes) -> bool:
    """Return whether a file that begins with `head` looks like one of these tables."""
    first = _cells(head.split(b"\n", 1)[0])
    return bool(first) and (
        first[0].lower() in NAMES["address"]
        or (len(first) > 1 and bool({cell.lower() for cell in first} & set(NAMES["address"])))
        or (first[0].lower().startswith("0x") and bool(_NUMBER.fullmatch(first[0])))
    )


def read(path: Path, *, granule: int = PAGE, fetch: bool = False) -> Iterator[Chunk]:
    """Read a table.

    Raises
    ------
    InputError
        A column is missing, or a cell is no number or kind; the message has the line.
    """
    batch = Batch(str(path), granule)
    columns: dict[str, int] | None = None
    with opened(path) as file:
        for number, line in lines(file, str(path)):
            cells = _cells(line)
            where = f"{path}: line {number}"
            if not any(cells):
                continue
            if columns is None:
                if not _NUMBER.fullmatch(cells[0]):
                    columns = columns_of(cells, where)
                    continue
                columns = dict(zip(NAMES, range(len(cells)), strict=False))
            if len(cells) <= max(columns.values()):
                raise InputError(f"{where}: {shown(line)}: expected {max(columns.values()) + 1} cells or more.")
            address = _number(cells[columns["address"]], "address", (1 << 64) - 1, where)
            kind = kind_of(cells[columns["kind"]], where) if "kind" in columns else Kind.READ
            count = _number(cells[columns["count"]], "count", _MOST, where) if "count" in columns else 1
            if not count:
                raise InputError(f"{where}: count = 0: expected at least 1.")
            if kind != Kind.FETCH or fetch:
                yield from batch.add(number, address, kind, count=count)
    yield from batch.flush()
    yield from batch.builder.rest()


def _cells(line: bytes) -> list[str]:
    return [cell.strip().strip("\"'") for cell in line.decode("ascii", "backslashreplace").split(",")]


def _number(cell: str, what: str, most: int, where: str) -> int:
    if not _NUMBER.fullmatch(cell):
        raise InputError(f"{where}: {what} {cell[:20]!r}: expected a number, decimal or hexadecimal after 0x.")
    value = int(cell, 0) if cell[:2] in ("0x", "0X") else int(cell)
    if value > most:
        raise InputError(f"{where}: {what} {cell}: expected at most {most}.")
    return value
