"""Raw addresses: 64-bit little-endian words and nothing else. Every one is a read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vmsim.base.files import printable
from vmsim.workloads.opening import opened
from vmsim.workloads.readers.accesses import signed
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.readers.records import records
from vmsim.workloads.runs import RunBuilder
from vmsim.workloads.stream import PAGE, Chunk

__all__ = ["ENDINGS", "read", "sniff"]

ENDINGS = (".u64",)  # of files' names


def sniff(head: bytes) -> bool:
    """Return False: raw addresses have no mark."""
    return False


def read(path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None) -> Iterator[Chunk]:
    """Read raw addresses.

    Raises
    ------
    InputError
        An address is not canonical, or the file ends within one; the message has its number, from 0.
    """
    name = printable(path)
    builder = RunBuilder(granule)
    with opened(path) as file:
        for first, block in records(file, name, np.dtype("<u8")):
            words = block.astype(np.uint64)
            address = signed(words, None, lambda at, first=first: f"{name}: record {first + at}")  # type: ignore[misc]
            count, kind = np.ones(len(address), np.int32), np.zeros(len(address), np.uint8)
            yield from builder.add(address, count, kind)
    yield from builder.rest()
