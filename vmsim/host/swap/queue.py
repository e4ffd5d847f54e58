"""The queue of a device: first come, first served, by so many channels.

How long a request takes is drawn when it is made, so that when it is done is known at once: a request begins when it is
made or when the first channel is free, whichever is later (the recursion of J. Kiefer and J. Wolfowitz, Trans. AMS 78,
1955). One event for requests that are done together is enough.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel, leaf

__all__ = ["DeviceQueue", "serve"]

_REQUESTS, _WAITED, _SERVED = range(3)

Words = NDArray[np.int64]


@leaf
def _replace_first(heap, end):  # type: ignore[no-untyped-def]
    """Give the least of a heap another value (heapq.heapreplace)."""
    at = 0
    while 2 * at + 1 < len(heap):
        child = 2 * at + 1
        if child + 1 < len(heap) and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= end:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = end


@leaf
def serve(free, sums, now, services, done):  # type: ignore[no-untyped-def]
    """Make requests that take `services` cycles, int64[n], and fill `done` with the cycles at which each is done."""
    for at in range(len(services)):
        start = max(now, free[0])
        done[at] = start + services[at]
        _replace_first(free, done[at])
        sums[_WAITED] += start - now
        sums[_SERVED] += services[at]
    sums[_REQUESTS] += len(services)


@kernel
def _serve(free, sums, now, services, done):  # type: ignore[no-untyped-def]
    """Do the same for who calls it from Python."""
    serve(free, sums, now, services, done)


class DeviceQueue:
    """Requests of one kind, or of both.

    Parameters
    ----------
    channels : int
        Requests that are served at the same time.

    Attributes
    ----------
    free : int64[channels]
        When each channel is: a heap.
    sums : int64[3]
        What there was so far, as below.
    """

    def __init__(self, channels: int) -> None:
        self.free = np.zeros(channels, np.int64)
        self.sums = np.zeros(3, np.int64)

    @property
    def requests(self) -> int:
        """How many there were so far."""
        return int(self.sums[_REQUESTS])

    @property
    def waited(self) -> int:
        """Cycles that they have waited for a channel."""
        return int(self.sums[_WAITED])

    @property
    def served(self) -> int:
        """Cycles that they have taken in one."""
        return int(self.sums[_SERVED])

    def submit(self, now: int, services: Words) -> Words:
        """Make requests, one after the other, that take `services` cycles in a channel, int64[n].

        Returns the cycle at which each is done, int64[n].
        """
        done = np.empty(len(services), np.int64)
        _serve(self.free, self.sums, now, services, done)
        return done
