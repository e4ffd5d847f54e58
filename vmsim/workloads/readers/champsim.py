"""ChampSim's instruction records (`input_instr`, 64 bytes), plain or compressed.

A record is an instruction: its address, and up to four reads and two writes of memory; a zero is an empty place. The
order within an instruction is taken to be fetch, reads, writes. Accesses have no size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.workloads.opening import opened
from vmsim.workloads.readers.accesses import signed
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.readers.records import records
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import PAGE, Chunk, Kind

__all__ = ["CLOUDSUITE", "ENDINGS", "RECORD", "read", "read_records", "sniff"]

ENDINGS = (".champsim", ".champsimtrace", ".champsim.trace")  # of files' names


def _record(writes: int, pad: int) -> np.dtype[Any]:
    """Return the layout of a record with so many writes, and bytes of padding where C++ puts them."""
    fields: list[Any] = [
        ("ip", "<u8"),
        ("is_branch", "u1"),
        ("taken", "u1"),
        ("dst_regs", "u1", (writes,)),
        ("src_regs", "u1", (4,)),
        ("_pad", f"V{pad}"),
        ("dst_mem", "<u8", (writes,)),
        ("src_mem", "<u8", (4,)),
    ]
    return np.dtype([*fields, ("asid", "u1", (2,)), ("_end", "V6")] if pad else fields)


RECORD = _record(2, 0)
CLOUDSUITE = _record(4, 6)
_NAMES = {64: "champsim", 96: "champsim-cloudsuite"}
_NEAR = 1 << 12  # bytes: an instruction is mostly this near to the one before it


def sniff(head: bytes) -> bool:
    """Return False: the records have no mark."""
    return False


def read(path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None) -> Iterator[Chunk]:
    """Read 64-byte records; see `read_records`."""
    return read_records(path, RECORD, granule=granule, fetch=fetch, notes=notes)


def read_records(
    path: Path, dtype: np.dtype[Any], *, granule: int, fetch: bool, notes: Notes | None
) -> Iterator[Chunk]:
    """Read records of either layout.

    Raises
    ------
    InputError
        An address is not canonical, or the file ends within a record; the message has the record's number, from 0.

    Warns
    -----
    UserWarning
        The records look as if they had the other layout.
    """
    name = printable(path)
    notes = notes or Notes()
    builder = RunBuilder(granule)
    other = CLOUDSUITE if dtype == RECORD else RECORD
    hint = (
        f"The records do not say which layout they have: if it is the other one, choose --format "
        f"{_NAMES[other.itemsize]} (in a scenario: format = …)"
    )
    suspected = False
    with opened(path) as file:
        try:
            for first, block in records(file, name, dtype):
                if not suspected and (doubt := _doubt(block, first, other)):
                    suspected = True
                    warnings.warn(f"{name}: {doubt}. {hint}.", UserWarning, stacklevel=2)
                yield from _add(builder, block, f"{name}: record", first, fetch)
                notes.drop("fetches", 0 if fetch else int(np.count_nonzero(block["ip"])))
                notes.drop("registers and branch outcomes", len(block))
        except InputError as error:
            raise InputError(f"{error} {hint}.") from error
    yield from builder.rest()


def _doubt(block: NDArray[Any], first: int, other: np.dtype[Any]) -> str:
    """Say why records look as if they had another layout; nothing if they do not."""
    doubtful = np.flatnonzero((block["is_branch"] > 1) | (block["taken"] > 1) | (block["ip"] == 0))
    if len(doubtful):
        record = block[doubtful[0]]
        return (
            f"record {first + doubtful[0]}: ip = {record['ip']:#x}, is_branch = {record['is_branch']}, branch_taken = "
            f"{record['taken']}: expected an address, and 0 or 1"
        )
    if first:
        return ""
    data = np.ascontiguousarray(block).view(np.uint8).reshape(-1)
    those = data[: len(data) // other.itemsize * other.itemsize].view(other)
    sane = bool(len(those)) and not ((those["is_branch"] > 1) | (those["taken"] > 1) | (those["ip"] == 0)).any()
    here, there = _nearness(block["ip"]), _nearness(those["ip"])
    if sane and there > here:
        return (
            f"{here:.0%} of the instructions are within {_NEAR} bytes of the one before, and {there:.0%} would be if "
            f"the records had {other.itemsize} bytes"
        )
    return ""


def _nearness(ip: NDArray[np.uint64]) -> float:
    """Return the share of instructions that are near to the one before."""
    if len(ip) < 2:
        return 0.0
    apart = np.diff(np.ascontiguousarray(ip).view(np.int64))
    return float(np.mean((apart > -_NEAR) & (apart < _NEAR)))


def _add(builder: RunBuilder, block: NDArray[Any], where: str, first: int, fetch: bool) -> list[Chunk]:
    reads, writes = block["src_mem"].shape[1], block["dst_mem"].shape[1]
    kinds = [Kind.FETCH] * fetch + [Kind.READ] * reads + [Kind.WRITE] * writes
    parts = ([block["ip"][:, None]] if fetch else []) + [block["src_mem"], block["dst_mem"]]
    words = np.concatenate(parts, axis=1).astype(np.uint64)
    record, place = np.nonzero(words)
    address = signed(words[record, place], None, lambda at: f"{where} {first + record[at]}")
    return builder.add(address, np.ones(len(address), np.int32), np.array(kinds, np.uint8)[place])
