"""Write the program of this experiment, `bursts.vmtrace`: bursts of memory that is freed in pieces, and long pauses.

python experiments/reporting-order/bursts.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from vmsim.workloads import Chunk, Event, Kind, Op
from vmsim.workloads.vmtrace import VmtraceWriter

__all__ = ["BURST", "KEPT", "PAUSE", "ROUNDS", "rounds", "write"]

_PAGE: Final = 4096
_BASE: Final = 0x10_0000_0000
ROUNDS: Final = 6
BURST: Final = 4096
"""Pages that each round maps and writes to."""
PAUSE: Final = 100_000_000
"""Nanoseconds for which the program then waits."""


_COUNTS: Final = {1024: 1, 512: 1, 256: 1, 128: 3, 64: 6, 32: 10, 16: 20, 8: 40, 4: 60, 2: 60}


def _pieces() -> list[tuple[int, int]]:
    """Return what a round frees: first page and pages, of each power of two about a tenth of the memory.

    One page is kept behind each piece, so that pieces do not merge.
    """
    sizes = np.repeat([*_COUNTS], [*_COUNTS.values()])
    np.random.default_rng(20).shuffle(sizes)
    firsts = np.cumsum(sizes + 1) - (sizes + 1)
    return [*zip(firsts.tolist(), sizes.tolist(), strict=True)]


PIECES: Final = _pieces()
KEPT: Final = BURST - sum(size for _, size in PIECES)
"""Pages of a burst that the program has during the pause."""


def rounds() -> Chunk:
    """Return the program."""
    pages, events = [0], []
    for _ in range(ROUNDS):
        at = len(pages)
        events.append(Event(at, Op.MAP, 1, _BASE, BURST * _PAGE, 3))
        pages += range(BURST)
        at = len(pages)
        events += [Event(at, Op.UNMAP, 1, _BASE + first * _PAGE, size * _PAGE, 0) for first, size in PIECES]
        events.append(Event(at, Op.IO, 1, _BASE + (BURST - 1) * _PAGE, _PAGE, PAUSE))
    address = _BASE + _PAGE * np.array(pages, np.int64)
    return Chunk(address, np.ones(len(pages), np.int32), np.full(len(pages), Kind.WRITE, np.uint8), tuple(events))


def write(path: Path) -> None:
    """Write the trace."""
    with path.open("wb") as file:
        writer = VmtraceWriter(file, granule=_PAGE, about={"source": "bursts.py"})
        writer.add(rounds())
        writer.close()


if __name__ == "__main__":
    write(Path(__file__).parent / "bursts.vmtrace")
