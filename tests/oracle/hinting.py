"""What a migration copies by readings of a dirty log, and what hints of free pages spare it, by plain sets."""

from __future__ import annotations

from collections.abc import Iterable


class Migration:
    """A copy of so many frames that is under way: all at first, then what each reading has found."""

    def __init__(self, frames: int) -> None:
        self.to_copy = set(range(frames))
        self.copied: set[int] = set()  # and not written to since
        self.spared = 0

    def read(self, hints: Iterable[int], dirty: Iterable[int]) -> None:
        """Note what the guest has said is free since the last reading, and what this one has found."""
        free = self.to_copy & set(hints)
        self.spared += len(free)
        self.copied |= self.to_copy - free
        self.to_copy = set(dirty)
        self.copied -= self.to_copy

    def lacks(self, used: Iterable[int]) -> set[int]:
        """Return which frames of those that the guest uses are neither copied nor about to be."""
        return set(used) - self.copied - self.to_copy
