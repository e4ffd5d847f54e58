"""kcompactd of the host: compacts memory when a fault has found no block, and does not wait (Linux, mm/compaction.c).

Those who wait have it done at once, by the same scanners (`Compaction.compact`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from vmsim.base.clock import Clock
from vmsim.contracts import Steps
from vmsim.scenario.cpu import Cost

__all__ = ["Kcompactd"]


class Kcompactd:
    """Compaction of one host's memory, for who waits and who does not.

    Parameters
    ----------
    env : Clock
        Simulated time.
    compaction : Compaction
        Of the host's memory.
    costs : Cost
        What its steps take.

    Attributes
    ----------
    counts : Counter
        Of the scanners; the cycles of kcompactd (`compact_daemon_cycles`), and of those who waited
        (`compact_stall_cycles`).
    """

    def __init__(self, env: Clock, compaction: Any, costs: Cost) -> None:
        self.env = env
        self.compaction = compaction
        self.costs = costs
        self.counts: Counter[str] = self.compaction.scanners.counts
        self.counts.update({"compact_daemon_cycles": 0, "compact_stall_cycles": 0})
        self._order = 0
        self._called = self.env.event()

    def compact(self, order: int) -> int:
        """Compact memory for somebody who waits; return the cycles, 0 where no block of 2**order frames is free."""
        made, cycles = self.stall(order)
        return cycles if made else 0

    def stall(self, order: int) -> tuple[bool, int]:
        """Do that; return whether a block is free, and the cycles it took."""
        made, cycles = self.compaction.compact(order, self.costs, direct=True)
        self.counts["compact_stall_cycles"] += cycles
        return made, cycles

    def wake(self, order: int) -> int:
        """Have memory compacted later (wakeup_kcompactd); nobody has a block now."""
        self._order = order
        if not self._called.triggered:
            self._called.succeed()
        return 0

    def run(self) -> Steps[None]:
        """Compact memory whenever somebody has asked for it."""
        while True:
            yield self._called
            self._called = self.env.event()
            spent = self.costs.context_switch
            _, cycles = self.compaction.compact(self._order, self.costs, direct=False)
            self.counts["compact_daemon_cycles"] += cycles
            yield self.env.background(spent + cycles, frees=True)
