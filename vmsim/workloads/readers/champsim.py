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

from vmsim.errors import InputError
from vmsim.workloads.readers.accesses import signed
from vmsim.workloads.readers.files import opened
from vmsim.workloads.readers.records import records
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import PAGE, Chunk, Kind

__all__ = ["RECORD", "read", "read_records", "sniff"]

RECORD = np.dtype(
    [
        ("ip", "<u8"),
        ("is_branch", "u1"),
        ("taken", "u1"),
        ("dst_regs", "u1", (2,)),
        ("src_regs", "u1", (4,)),
        ("dst_mem", "<u8", (2,)),
        ("src_mem", "<u8", (4,)),
    ]
)


def sniff(head: bytes) -> bool:
    """Return False: the records have no mark."""
    return False


def read(path: Path, *, granule: int = PAGE, fetch: bool = False) -> Iterator[Chunk]:
    """Read 64-byte records; see `read_records`."""
    return read_records(path, RECORD, "champsim-cloudsuite", granule=granule, fetch=fetch)


def read_records(path: Path, dtype: np.dtype[Any], other: str, *, granule: int, fetch: bool) -> Iterator[Chunk]:
    """Read records of either layout; `other` is the name of the one that may have been meant.

    Raises
    ------
    InputError
        An address is not canonical, or the file ends within a record; the message has the record's number, from 0.

    Warns
    -----
    UserWarning
        The records look as if they had the other layout.
    """
    builder = RunBuilder(granule)
    suspected = False
    hint = f"The records do not say which layout they have: if it is the other one, choose --format {other}"
    with opened(path) as file:
        for first, block in records(file, str(path), dtype):
            doubtful = np.flatnonzero((block["is_branch"] > 1) | (block["taken"] > 1) | (block["ip"] == 0))
            if len(doubtful) and not suspected:
                suspected = True
                record = block[doubtful[0]]
                warnings.warn(
                    f"{path}: record {first + doubtful[0]}: ip = {record['ip']:#x}, is_branch = {record['is_branch']}, "
                    f"branch_taken = {record['taken']}: expected an address, and 0 or 1. {hint}.",
                    UserWarning,
                    stacklevel=2,
                )
            try:
                yield from _add(builder, block, f"{path}: record", first, fetch)
            except InputError as error:
                raise InputError(f"{error} {hint}.") from error
    yield from builder.rest()


def _add(builder: RunBuilder, block: NDArray[Any], where: str, first: int, fetch: bool) -> list[Chunk]:
    reads, writes = block["src_mem"].shape[1], block["dst_mem"].shape[1]
    kinds = [Kind.FETCH] * fetch + [Kind.READ] * reads + [Kind.WRITE] * writes
    parts = ([block["ip"][:, None]] if fetch else []) + [block["src_mem"], block["dst_mem"]]
    words = np.concatenate(parts, axis=1).astype(np.uint64)
    record, place = np.nonzero(words)
    address = signed(words[record, place], None, lambda at: f"{where} {first + record[at]}")
    return builder.add(address, np.ones(len(address), np.int32), np.array(kinds, np.uint8)[place])
