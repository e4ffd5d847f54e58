"""Refills that come before a pool is empty: the host is called while there is as much as a refill takes to come.

How fast pages are taken is known from the refills before, as a moving average that halves with each. A refill of n
pages takes M + F + n P cycles (`message`, `grant_fixed`, `grant_page + host_zero`), in which r (M + F + n P) are taken
at r pages a cycle. It brings what is taken meanwhile if n = r (M + F) / (1 - r P); where pages are taken faster than
they are cleared, nothing suffices, and the maximum is asked for. `percent` of n is both the level at which the host is
called and what a refill brings.
"""

from __future__ import annotations

from vmsim.contracts import Reserve
from vmsim.host.daemons.parts import DaemonParts
from vmsim.scenario.cpu import Cost

__all__ = ["Predictive", "build"]

_BITS = 10


class Predictive:
    """A moving average of how fast pages are taken: a pair of pages and cycles, so that all is integers.

    Attributes
    ----------
    pages, cycles : int
        Taken from one refill to the next, in 1024ths, and how long that was; the older ones count half with each.
    """

    def __init__(self, percent: int, costs: Cost) -> None:
        self.percent = percent
        self.fixed = costs.message + costs.grant_fixed
        self.each = costs.grant_page + costs.host_zero
        self.pages = self.cycles = 0
        self._seen = (0, 0)  # the time, and the pages taken by then

    def low(self, pool: Reserve) -> int:
        """Return the level under which the host is called."""
        return max(pool.spec.min, self._enough(pool.spec.max))

    def count(self, pool: Reserve) -> int:
        """Return the pages of the next refill, and learn from what was taken since the last.

        That is `pool.batch` until something is known, and never less than the pool lacks of its lower mark.
        """
        (then, before), now = self._seen, (pool.env.cycle, pool.taken)
        if now[0] > then:
            self.pages = max(0, self.pages // 2 + ((now[1] - before) << _BITS))
            self.cycles = self.cycles // 2 + now[0] - then
            self._seen = now
        if not self.pages:
            return pool.spec.batch
        return max(1, self._enough(pool.spec.max), self.low(pool) - pool.level)

    def _enough(self, most: int) -> int:
        """Return `percent` of the pages that are taken while a refill of as many is on its way, `most` at most."""
        left = (self.cycles << _BITS) - self.pages * self.each  # of the cycles, besides those that clearing takes
        if left <= 0:
            return most if self.pages else 0
        return min(most, -(-self.percent * self.pages * self.fixed // (100 * left)))


def build(parts: DaemonParts) -> Predictive:
    """Return the policy."""
    return Predictive(parts.table.percent, parts.costs)
