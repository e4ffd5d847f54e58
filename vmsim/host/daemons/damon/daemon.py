"""kdamond: samples say which regions of a VM's memory are accessed; a scheme is applied to some (mm/damon, Linux 6.12).

Of each region one page is looked at: its accessed flag is cleared, and read after the sampling interval. What is
counted in an aggregation stands for the region; then regions that are alike merge, the scheme is applied, and regions
are split at random, so that as many look-ups find what matters (Documentation/mm/damon/design.rst). Each VM has a
kdamond of its own, over its guest frames; of a program on the host it looks at the host's frames.

Linux does not flush TLBs as it clears flags, and may miss accesses for it; here processors forget. A sample of all
regions is one event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NO_FLUSH, DaemonHost, Flush, LiveVm, Steps
from vmsim.frames.nodes import node_of
from vmsim.host.daemons.damon.regions import first_regions, merge, split
from vmsim.host.daemons.damon.scheme import Scheme
from vmsim.host.daemons.damon.table import Damon
from vmsim.host.daemons.moving import Mover
from vmsim.host.daemons.parts import DaemonParts
from vmsim.scenario.cpu import Cost

__all__ = ["Kdamond", "Kdamonds", "build"]

_COUNTED = ("samples", "aggregations", "cycles", "regions", "tried", "tried_pages", "applied", "applied_pages")


class Kdamond:
    """The one of one VM.

    Parameters
    ----------
    vm : LiveVm
    table : Damon
    costs : Cost
    frequency : int
        Cycles in a second.
    seed : int
        Of the places of samples and splits.

    Attributes
    ----------
    regions : REGION[:]
        Of which `count` are there.
    counts : Counter
        `samples` and `aggregations`, `regions` of all aggregations; regions that fitted the scheme and their pages
        (`tried`, `tried_pages`), and those to which it was applied; `cycles`.
    """

    def __init__(self, vm: LiveVm, table: Damon, costs: Cost, frequency: int, seed: int) -> None:
        self.vm = vm
        self.table = table
        self.costs = costs
        self.every = max(1, table.sample_interval.cycles(frequency))
        self.samples = max(1, table.aggr_interval.cycles(frequency) // self.every)
        self.draw = np.random.Generator(np.random.PCG64([seed, vm.pages.owner]))
        room = 3 * table.max_nr_regions
        self.regions, self.count = first_regions(vm.pages.numbers, table.min_nr_regions, room)
        self.spare: NDArray[np.void] = np.zeros_like(self.regions)
        self.largest = max(1, vm.pages.numbers // table.min_nr_regions)
        self.counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
        interval = table.aggr_interval.cycles(frequency)
        self.scheme = Scheme(table, self.samples, aggregation=interval, second=frequency)
        self._before = 0  # regions when they were last split
        self._host: DaemonHost
        self._mover: Mover

    def run(self, host: DaemonHost) -> Steps[None]:
        """Sample from now on."""
        self._host, self._mover = host, Mover(host.host, self.costs)
        passed = 0
        while not self.vm.gone:
            asked = spent = 0
            numbers = self._sampled()
            if self.vm.able:
                asked = len(numbers)
                spent = self._clear(numbers)
            yield host.env.background(self.every + spent, frees=True)
            if asked and self.vm.able:
                self._look(numbers)
            passed += 1
            self.counts["samples"] += 1
            if passed % self.samples == 0 and (more := self._aggregate()):
                yield host.env.background(more, frees=True)

    def _sampled(self) -> NDArray[np.int64]:
        """Return a page of each region, int64[count]."""
        live = self.regions[: self.count]
        return np.asarray(self.draw.integers(live["start"], live["end"]))

    def _clear(self, numbers: NDArray[np.int64]) -> int:
        """Clear the accessed flags of pages; return the cycles of it (damon_va_prepare_access_checks)."""
        pages = self.vm.pages
        there = numbers[pages.holds_each(numbers)]
        young = pages.second.age_each(there, clear=True)
        flush = Flush(nested=not self.vm.spec.bare, linear=True) if young.any() else NO_FLUSH
        cycles = 2 * len(numbers) * self.costs.age_page + self.vm.forget(flush)
        self.counts["cycles"] += cycles
        return cycles

    def _look(self, numbers: NDArray[np.int64]) -> None:
        """Count the regions whose page has been accessed since."""
        pages = self.vm.pages
        there = np.flatnonzero(pages.holds_each(numbers))
        young = pages.second.age_each(numbers[there], clear=False)
        self.regions["accesses"][there[young]] += 1

    def _aggregate(self) -> int:
        """End an aggregation: merge regions, apply the scheme, and split them; return the cycles of that."""
        self.counts["aggregations"] += 1
        self._merge()
        self.counts["regions"] += self.count
        cycles = self._apply() if self.vm.able else 0
        live = self.regions[: self.count]
        live["last"] = live["accesses"]
        live["accesses"] = 0
        self._split()
        self.counts["cycles"] += cycles
        return cycles

    def _merge(self) -> None:
        """Merge regions by a tenth of the most accesses, by more while they are too many (kdamond_merge_regions)."""
        threshold = int(self.regions["accesses"][: self.count].max(initial=0)) // 10
        while True:
            self.count = int(merge(self.regions, self.count, threshold, self.largest))
            threshold = max(1, 2 * threshold)
            if self.count <= self.table.max_nr_regions or threshold // 2 >= self.samples:
                return

    def _split(self) -> None:
        """Split regions while there are few (kdamond_split_regions)."""
        before, self._before = self._before, self.count
        if self.count > self.table.max_nr_regions // 2:
            return
        pieces = 3 if before == self.count and self.count < self.table.max_nr_regions // 3 else 2
        draws = self.draw.integers(1, 10, 2 * self.count)
        self.count = int(split(self.regions, self.count, pieces, draws, self.spare))
        self.regions, self.spare = self.spare, self.regions

    def _apply(self) -> int:
        """Apply the scheme to regions that fit it; return the cycles (kdamond_apply_schemes)."""
        live, cycles = self.regions[: self.count], 0
        for at, first, last in self.scheme.chosen(live, self._host.env.cycle):
            self.counts["tried"] += 1
            self.counts["tried_pages"] += last - first
            done, spent = self._act(first, last)
            self.counts["applied"] += done > 0
            self.counts["applied_pages"] += done
            cycles += spent
            if self.table.action != "stat":
                live["age"][at] = 0
        return cycles

    def _act(self, first: int, last: int) -> tuple[int, int]:
        """Apply the action to pages [first, last); return how many it was, and the cycles."""
        action, memory = self.table.action, self.vm.pages
        numbers = np.arange(first, last)
        numbers = numbers[memory.holds_each(numbers)]
        if action == "stat":
            return len(numbers), 0
        if action == "pageout":
            taken, cycles = self._host.daemons["swap"].page_out(self.vm, numbers) if len(numbers) else (0, 0)
            return int(taken), int(cycles)
        to = self.table.target
        assert to is not None
        numbers = memory.heads(numbers)
        numbers = numbers[node_of(self._host.host.zone, memory.frames_each(numbers)) != to]
        moved = self._mover.move(self.vm, numbers, to, least=self._host.host.nodes.marks[to].min)
        return moved.frames, moved.cycles


class Kdamonds:
    """Those of all VMs."""

    def __init__(self, parts: DaemonParts) -> None:
        self.parts = parts
        self.of: dict[int, Kdamond] = {}

    def register(self, vms: Sequence[Any]) -> None:
        """Have each VM count what was found and done."""
        for vm in vms:
            if vm.pages:
                parts = self.parts
                each = Kdamond(vm, parts.table, parts.costs, parts.frequency, parts.seed)
                self.of[vm.pages.owner] = each
                vm.ledger.counters("damon", lambda each=each: each.counts)

    def run(self, host: DaemonHost) -> Steps[None]:
        """Have each sample from now on."""
        for each in self.of.values():
            host.env.process(each.run(host))
        yield from ()


def build(parts: DaemonParts) -> Kdamonds:
    """Return the daemon that a scenario asks for."""
    return Kdamonds(parts)
