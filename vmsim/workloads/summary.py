"""What can be said of a stream in a few numbers, gathered chunk by chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.workloads.runs import PageSet
from vmsim.workloads.stream import Chunk, Kind, Op, Regions

__all__ = ["REUSE", "Summary"]

# Upper ends of the classes of recency ranks. The last, 256, holds everything farther away or new.
REUSE = (0, 1, 3, 7, 15, 31, 63, 127, 254, 256)


class Summary:
    """Totals of the chunks added so far."""

    def __init__(self) -> None:
        self.runs = 0
        self.longest = 0
        self._accesses = np.zeros(len(Kind), np.int64)
        self._events = np.zeros(len(Op), np.int64)
        self._pids: set[int] = set()
        self._threads = 1
        self._reuse = np.zeros(256, np.int64)
        self._pages = PageSet()

    @property
    def accesses(self) -> int:
        """All accesses."""
        return int(self._accesses.sum())

    def add(self, chunk: Chunk, rank: NDArray[np.uint8]) -> None:
        """Take a chunk and the recency ranks of its runs' blocks (see `columns`)."""
        self.runs += len(chunk.count)
        self.longest = max(self.longest, int(chunk.count.max(initial=0)))
        for kind in Kind:
            self._accesses[kind] += chunk.count[chunk.kind == kind].sum(dtype=np.int64)
        for event in chunk.events:
            self._events[event.op] += 1
            self._pids.add(event.pid)
            if event.op == Op.THREAD:
                self._threads = max(self._threads, event.argument + 1)
        self._reuse += np.bincount(rank, minlength=256)
        self._pages.add(chunk.address)

    def regions(self) -> Regions:
        """Return starts and lengths in bytes of the pages touched."""
        return self._pages.regions()

    def totals(self) -> dict[str, Any]:
        """Return the numbers, ready for JSON."""
        below = np.cumsum(self._reuse)
        ends = [int(below[min(end, 255)]) for end in REUSE]
        return {
            "accesses": self.accesses,
            "runs": self.runs,
            "reads": int(self._accesses[Kind.READ]),
            "writes": int(self._accesses[Kind.WRITE]),
            "fetches": int(self._accesses[Kind.FETCH]),
            "longest_run": self.longest,
            "pages": int(self.regions()[1].sum()) // 4096,
            "processes": max(1, len(self._pids)),
            **({"threads": self._threads} if self._threads > 1 else {}),
            "events": {op.name.lower(): int(self._events[op]) for op in Op if self._events[op]},
            "reuse": [after - before for before, after in zip([0, *ends], ends, strict=False)],
        }
