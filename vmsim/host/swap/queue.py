"""The queue of a device: first come, first served, by so many channels.

How long a request takes is drawn when it is made, so that when it is done is known at once: a request begins when it is
made or when the first channel is free, whichever is later (the recursion of J. Kiefer and J. Wolfowitz, Trans. AMS 78,
1955). One event a request is enough.
"""

from __future__ import annotations

from heapq import heapify, heapreplace

__all__ = ["DeviceQueue"]


class DeviceQueue:
    """Requests of one kind, or of both.

    Parameters
    ----------
    channels : int
        Requests that are served at the same time.

    Attributes
    ----------
    requests : int
        So far.
    waited, served : int
        Cycles that they have waited for a channel, and taken in one.
    """

    def __init__(self, channels: int) -> None:
        self._free = [0] * channels  # when each channel is
        heapify(self._free)
        self.requests = self.waited = self.served = 0

    def submit(self, now: int, service: int) -> int:
        """Make a request that takes `service` cycles in a channel; return the cycle at which it is done."""
        start = max(now, self._free[0])
        heapreplace(self._free, start + service)
        self.requests += 1
        self.waited += start - now
        self.served += service
        return start + service
