"""ChampSim's CloudSuite records (`cloudsuite_instr`, 96 bytes): four writes, not two, and address-space ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vmsim.workloads.readers.champsim import CLOUDSUITE, read_records
from vmsim.workloads.readers.notes import Notes
from vmsim.workloads.stream import PAGE, Chunk

__all__ = ["ENDINGS", "read", "sniff"]

ENDINGS = (".cloudsuite",)  # of files' names


def sniff(head: bytes) -> bool:
    """Return False: the records have no mark."""
    return False


def read(path: Path, *, granule: int = PAGE, fetch: bool = False, notes: Notes | None = None) -> Iterator[Chunk]:
    """Read 96-byte records; see `champsim.read_records`."""
    return read_records(path, CLOUDSUITE, granule=granule, fetch=fetch, notes=notes)
