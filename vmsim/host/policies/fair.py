"""Pages by weight: pools give so that what they keep is in proportion, and who has had least gets frames first.

With equal weights the pools that have most give, down to a common level (max-min fairness: D. Bertsekas and R.
Gallager, Data Networks, 1987, §6.5.2); with shares each keeps a level in proportion to its VM's (C. Waldspurger,
Memory Resource Management in VMware ESX Server, OSDI 2002, §5.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from vmsim.contracts import FrameRequest, Reserve, SparesHost
from vmsim.host.daemons.parts import DaemonParts

__all__ = ["ByWeight", "build"]


class ByWeight:
    """All VMs alike.

    Attributes
    ----------
    had : Counter
        Frames that each VM has been given so far, after it had to ask for them.
    usual : int
        Weight of who asks and has no reserve: a program on the host itself.
    """

    usual = 1

    def __init__(self) -> None:
        self.had: Counter[int] = Counter()

    def weight(self, reserve: Reserve) -> int:
        """Return what a VM's part of the pages is in proportion to."""
        return 1

    def levels(self, host: SparesHost, reserves: Sequence[Reserve]) -> Iterator[tuple[Reserve, int]]:
        """Yield who gives, and what each keeps: as much for its weight as any other that gives, and all its least."""
        spare = {each: each.level - each.kept for each in reserves if each.level > each.kept}
        wanted = min(host.missing, sum(spare.values()))
        if wanted <= 0:
            return
        weights = {each: self.weight(each) for each in spare}
        most = max(weights.values())
        line = _line([(each.level, each.kept, weights[each]) for each in spare], most, wanted)
        for each in spare:
            yield each, max(each.kept, line * weights[each] // most)

    def first(self, waiting: Sequence[FrameRequest], reserves: Sequence[Reserve]) -> int:
        """Return whose turn it is: of who has been given least for its weight, who asked first."""
        weights = {each.owner: self.weight(each) for each in reserves}
        return min(range(len(waiting)), key=lambda at: self._has(waiting[at], weights))

    def served(self, request: FrameRequest, frames: int) -> None:
        """Note that somebody got frames."""
        self.had[request.asker] += frames

    def _has(self, request: FrameRequest, weights: dict[int, int]) -> tuple[int, int]:
        weight = weights.get(request.asker, self.usual)
        return self.had[request.asker] * max(weights.values(), default=self.usual) // weight, request.asker


def _line(pools: Sequence[tuple[int, int, int]], most: int, wanted: int) -> int:
    """Return the largest level for a weight of `most` at which pools of (level, kept, weight) give `wanted` or more."""
    low, high = 0, max(-(-level * most // weight) for level, _, weight in pools)
    while low < high:
        middle = (low + high + 1) // 2
        given = sum(max(0, level - max(kept, middle * weight // most)) for level, kept, weight in pools)
        low, high = (middle, high) if given >= wanted else (low, middle - 1)
    return low


def build(parts: DaemonParts) -> ByWeight:
    """Return the policy."""
    return ByWeight()
