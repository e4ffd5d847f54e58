"""ChampSim's CloudSuite records (`cloudsuite_instr`, 96 bytes): four writes, not two, and address-space ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vmsim.workloads.readers.champsim import read_records
from vmsim.workloads.stream import PAGE, Chunk

__all__ = ["RECORD", "read", "sniff"]

RECORD = np.dtype(
    [
        ("ip", "<u8"),
        ("is_branch", "u1"),
        ("taken", "u1"),
        ("dst_regs", "u1", (4,)),
        ("src_regs", "u1", (4,)),
        ("_pad", "V6"),
        ("dst_mem", "<u8", (4,)),
        ("src_mem", "<u8", (4,)),
        ("asid", "u1", (2,)),
        ("_end", "V6"),
    ]
)


def sniff(head: bytes) -> bool:
    """Return False: the records have no mark."""
    return False


def read(path: Path, *, granule: int = PAGE, fetch: bool = False) -> Iterator[Chunk]:
    """Read 96-byte records; see `champsim.read_records`."""
    return read_records(path, RECORD, "champsim", granule=granule, fetch=fetch)
