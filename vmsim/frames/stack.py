"""A stack of frames in one array, so that kernels written in Python and compiled ones can take from the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stack"]

_ROOM = 8  # for a table of each level


class Stack:
    """Frames that stand ready: the last one put is the first one taken.

    Attributes
    ----------
    words : int64[:]
        How many there are, then they, the oldest first, and room for some more. Another array once it had to grow.
    """

    def __init__(self, room: int = 512) -> None:
        self._make(room)

    def __len__(self) -> int:
        return self._view[0]

    def pop(self) -> int:
        """Take the last one."""
        view = self._view
        level = view[0]
        view[0] = level - 1
        return view[level]

    def take(self, count: int) -> list[int]:
        """Take the last `count` of them, in the order in which they were put."""
        end = self._view[0] + 1
        self._view[0] = end - 1 - count
        return self._view[end - count : end].tolist()

    def drop(self, count: int) -> NDArray[np.int64]:
        """Take the oldest `count` of them, int64[count]."""
        words, left = self.words, len(self) - count
        taken = words[1 : 1 + count].copy()
        words[1 : 1 + left] = words[1 + count : 1 + count + left].copy()
        words[0] = left
        return taken

    def put(self, frames: Sequence[int] | NDArray[np.int64]) -> None:
        """Add some."""
        end = len(self) + 1
        if end + len(frames) + _ROOM > len(self.words):
            self._make(2 * (end + len(frames) + _ROOM))
        self.words[end : end + len(frames)] = frames
        self.words[0] = end - 1 + len(frames)

    def held(self) -> NDArray[np.int64]:
        """Return a copy of them all, int64[n]."""
        return self.words[1 : 1 + len(self)].copy()

    def _make(self, room: int) -> None:
        words = np.zeros(room, np.int64)
        if hasattr(self, "words"):
            words[: len(self) + 1] = self.words[: len(self) + 1]
        self.words = words
        self._view = memoryview(words)  # four times as fast to reach an element by
