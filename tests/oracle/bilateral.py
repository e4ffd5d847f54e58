"""Which huge frames a host has taken from a guest's allocator, by plain sets (HyperAlloc, EuroSys 2025, section 3)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

HUGE = 512


class Shared:
    """Huge frames that are installed, soft or hard, and which of their frames the guest uses, and have memory."""

    def __init__(self, huge: int, least: int = 0) -> None:
        self.state = ["installed"] * huge
        self.used: set[int] = set()
        self.backed: set[int] = set()
        self.least = least  # frames that stay free
        self.work: Counter[str] = Counter()

    def frames(self, number: int) -> range:
        return range(number * HUGE, (number + 1) * HUGE)

    def free(self, number: int) -> bool:
        return self.state[number] != "hard" and not any(gfn in self.used for gfn in self.frames(number))

    def allocate(self, gfns: Iterable[int]) -> None:
        """Note frames that the guest has got: what they lie in is installed first, and they are written to."""
        for gfn in gfns:
            number = gfn // HUGE
            assert gfn not in self.used, f"{gfn} is in use"
            assert self.state[number] != "hard", f"{gfn} is the host's"
            if self.state[number] == "soft":
                self.state[number] = "installed"
                self.work["installed"] += 1
                self.backed.update(self.frames(number))
            self.used.add(gfn)
            self.backed.add(gfn)

    def give(self, gfns: Iterable[int]) -> None:
        for gfn in gfns:
            self.used.remove(gfn)

    def take(self, number: int, state: str) -> None:
        """Take the memory of a huge frame, if it has not been taken already."""
        if self.state[number] == "installed":
            pages = self.backed.intersection(self.frames(number))
            self.work["discards"] += 1
            self.work["pages"] += len(pages)
            self.backed -= pages
        self.work["changes"] += 1
        self.work[state] += 1
        self.state[number] = state

    def reclaim(self) -> None:
        """Take what is free softly."""
        self.work["looked"] += len(self.state)
        for number, state in enumerate(self.state):
            if state == "installed" and self.free(number):
                self.take(number, "soft")

    def limit(self, huge: int) -> int:
        """Have so many be hard, as far as there are free ones; return how many lack. What is soft goes first."""
        while (lacking := huge - self.state.count("hard")) > 0:
            self.work["looked"] += len(self.state)
            free = len(self.state) * HUGE - len(self.used) - self.state.count("hard") * HUGE
            lacking = min(lacking, max(0, free - self.least) // HUGE)
            there = [number for number in range(len(self.state)) if self.free(number)]
            soft = [number for number in there if self.state[number] == "soft"]
            if not there or not lacking:
                break
            for number in (soft or there)[:lacking]:
                self.take(number, "hard")
        while self.state.count("hard") > huge:
            self.state[self.state.index("hard")] = "soft"
            self.work["changes"] += 1
            self.work["restored"] += 1
        return huge - self.state.count("hard")
