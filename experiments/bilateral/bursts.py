"""Write the program of this experiment, `bursts.vmtrace`: bursts of memory that is freed as a whole, and pauses.

python experiments/bilateral/bursts.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from vmsim.workloads import Chunk, Event, Kind, Op
from vmsim.workloads.vmtrace import VmtraceWriter

__all__ = ["BURST", "PAUSE", "ROUNDS", "rounds", "write"]

_PAGE: Final = 4096
_BASE: Final = 0x10_0000_0000
ROUNDS: Final = 8
BURST: Final = 8192
"""Pages that each round maps, writes to and frees."""
PAUSE: Final = 60_000_000
"""Nanoseconds for which the program then waits."""


def rounds() -> Chunk:
    """Return the program."""
    pages, events = [0], [Event(0, Op.MAP, 1, _BASE - _PAGE, _PAGE, 3)]
    for _ in range(ROUNDS):
        events.append(Event(len(pages), Op.MAP, 1, _BASE, BURST * _PAGE, 3))
        pages += range(1, BURST + 1)
        events.append(Event(len(pages), Op.UNMAP, 1, _BASE, BURST * _PAGE, 0))
        events.append(Event(len(pages), Op.IO, 1, _BASE - _PAGE, _PAGE, PAUSE))
    address = _BASE - _PAGE + _PAGE * np.array(pages, np.int64)
    return Chunk(address, np.ones(len(pages), np.int32), np.full(len(pages), Kind.WRITE, np.uint8), tuple(events))


def write(path: Path) -> None:
    """Write the trace."""
    with path.open("wb") as file:
        writer = VmtraceWriter(file, granule=_PAGE, about={"source": "bursts.py"})
        writer.add(rounds())
        writer.close()


if __name__ == "__main__":
    write(Path(__file__).parent / "bursts.vmtrace")
