"""How much of a VM's memory is in use, from a few pages that are unmapped and watched (Waldspurger 2002, §5.3).

At the start of each period some of a VM's pages are drawn, each as likely as any other, and whatever processors and
paging mode have cached of them is invalidated. The next access to one maps it again, by the faults that the mode has
for it. The share of the pages that are mapped at the end estimates the share of the VM's memory that is in use. Three
figures smooth it: a slow and a fast moving average of the periods, and the fast one with the period under way counted
in as if it were over; the largest of them is the estimate, so that it rises at once and falls slowly.

The paper counts a period in time that the VM runs, gives no gains of the averages, and samples pages of 4 KiB. Here a
period is simulated time; a page that an entry of 2 MiB maps takes the others along, so that all of them count as used
when one is; and so do pages that a monitor maps without being asked (`vm.fill_chunk`).
"""

from __future__ import annotations

from random import Random

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NO_FLUSH, SharingVm

__all__ = ["SampledWorkingSet"]


class SampledWorkingSet:
    """The estimate for one VM.

    Parameters
    ----------
    vm : SharingVm
        Whose memory.
    seed : int
        Of the pages that are drawn.
    pages, period : int
        How many are watched at a time, and for how many cycles.
    slow, fast : float
        How much of a new figure enters an average, 0 to 1.
    each : int
        Cycles to unmap a page.

    Attributes
    ----------
    averages : (float, float, float)
        The slow average, the fast one, and the fast one with the period under way; shares of the VM's memory.
    watched : int64[n]
        The pages that are watched now.
    """

    def __init__(
        self, vm: SharingVm, *, seed: int, pages: int, period: int, slow: float, fast: float, each: int
    ) -> None:
        self.vm = vm
        self.random = Random(seed)
        self.pages = min(pages, vm.size)
        self.period = period
        self.gains = slow, fast
        self.each = each
        self.averages: tuple[float, float, float] = (0.0, 0.0, 0.0)
        self.watched: NDArray[np.int64] = np.empty(0, np.int64)
        self.periods = 0
        self._begun = 0

    @property
    def share(self) -> float:
        """The share of the VM's memory that is in use, 0 to 1; 1 as long as nothing is known."""
        return max(self.averages) if self.periods else 1.0

    def turn(self, now: int) -> int:
        """Look at the pages that are watched, and begin another period if this one is over; return the cycles."""
        if len(self.watched):
            self._look(now)
            if now < self._begun + self.period:
                return 0
        return self._begin(now)

    def _look(self, now: int) -> None:
        mapped = self.vm.memory.second.mapped
        touched = sum(bool(mapped(number, 1)[0]) for number in self.watched.tolist()) / len(self.watched)
        slow, fast, _ = self.averages
        gain_slow, gain_fast = self.gains
        ahead = fast + gain_fast * (touched - fast)
        if now >= self._begun + self.period:
            slow = touched if not self.periods else slow + gain_slow * (touched - slow)
            fast = ahead = touched if not self.periods else ahead
            self.periods += 1
        self.averages = slow, fast, ahead

    def _begin(self, now: int) -> int:
        self._begun = now
        self.watched = np.array(sorted(self.random.sample(range(self.vm.size), self.pages)), np.int64)
        memory = self.vm.memory
        mapped = np.array([number for number in self.watched.tolist() if memory.second.mapped(number, 1)[0]], np.int64)
        if not len(mapped):
            return 0
        flush = memory.second.zap_each(mapped)
        cycles = len(mapped) * self.each
        return cycles if flush == NO_FLUSH else cycles + self.vm.forget(flush, times=len(mapped))
