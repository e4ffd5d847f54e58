"""What a monitor needs of others: its vCPU, its page pool, the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.frames.stack import Stack

__all__ = ["Alarmed", "Host", "Pool", "Vcpu"]


class Vcpu(Protocol):
    """What the monitor needs of a vCPU."""

    first_touch: Counter[str]  # cycles by cause, of those used so far

    @property
    def now(self) -> int:
        """The cycle the vCPU has reached, what it owes included."""
        ...

    def owe(self, cause: str, cycles: int) -> None:
        """Use cycles, to be paid in simulated time before anything shared is touched."""

    def first(self) -> AbstractContextManager[None]:
        """Count the cycles of what is done inside as those of a first touch."""
        ...

    def settle(self) -> simpy.Event:
        """Return an event that pays what is owed."""
        ...

    @property
    def slack(self) -> int:
        """Cycles until something else happens; 0 if nothing may be done ahead of simulated time."""
        ...

    def wait(self, event: simpy.Event, cause: str) -> Generator[simpy.Event, Any, Any]:
        """Give up the core until `event`; return its value."""
        ...


class Alarmed(Vcpu, Protocol):
    """A vCPU that calls its monitor's `rang` at the cycle `alarm`."""

    alarm: int


class Pool(Protocol):
    """The monitor's page pool."""

    pages: Stack

    @property
    def floor(self) -> int:
        """Free pages that may be left for a page to be taken without anybody being called or waited for."""
        ...

    @property
    def level(self) -> int:
        """Free pages in it."""
        ...

    def take(self, count: int) -> list[int]:
        """Return `count` pages, or none."""
        ...

    def request(self, count: int) -> simpy.Event:
        """Return an event that gives `count` pages."""
        ...

    def put(self, pages: Sequence[int] | NDArray[np.int64]) -> None:
        """Add pages."""

    def take_block(self, order: int) -> int:
        """Return the first frame of a large page of the host's, or NO_FRAME."""
        ...


class Host(Protocol):
    """What the monitor asks of the host besides its pool."""

    zone: NDArray[Any]
    frames: NDArray[Any]
    failures: Counter[tuple[int, int]]  # blocks that were wanting, by owner and order

    def give_block(self, pfn: int, order: int) -> None:
        """Take back 2**order frames."""
