"""The out-of-order window, access by access: nothing is forgotten, and each time is looked up where it is needed.

Written from the dependence graph of Fields, Rubin and Bodik (ISCA 2001, figure 2): an access cannot be dispatched
before the one in front of it, nor before the one a window's length in front has retired; it cannot retire before the
one in front of it. Walks are served by so many walkers, and misses of the L1 by so many buffers, in order.
"""

from __future__ import annotations


class Window:
    """A window of so many accesses, with so many page walkers and fill buffers."""

    def __init__(self, accesses: int, walkers: int, buffers: int) -> None:
        self.accesses = accesses
        self.walkers = [0] * walkers
        self.buffers = [0] * buffers
        self.dispatched = [0]
        self.retired = [0]
        self.drain()

    def drain(self) -> None:
        """Finish all that is under way: the next access finds the window empty."""
        now = self.retired[-1]
        self.dispatched, self.retired = [now], [now]  # the last access before

    def access(self, work: int, look_up: int = 0, walk: int = 0, miss: int = 0, *, fetch: bool = False) -> int:
        """Make an access; return the cycles from when the one before had retired until it has."""
        dispatched = self.dispatched[-1] + work
        before = len(self.retired) - self.accesses
        if before >= 1:
            dispatched = max(dispatched, self.retired[before])
        done = dispatched + look_up
        for servers, cycles in ((self.walkers, walk), (self.buffers, miss)):
            if cycles:
                earliest = servers.index(min(servers))
                servers[earliest] = done = max(done, servers[earliest]) + cycles
        self.dispatched.append(done if fetch else dispatched)
        self.retired.append(max(self.retired[-1], done))
        return self.retired[-1] - self.retired[-2]
