"""A stack of frames in one array, so that kernels written in Python and compiled ones can take from the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["NodeStack", "Stack"]

_ROOM = 8  # for a table of each level


class Stack:
    """Frames that stand ready: the last one put is the first one taken.

    Attributes
    ----------
    words : int64[:]
        How many there are, then they, the oldest first, and room for some more. Another array once it had to grow.
    view : memoryview
        Of `words`: four times as fast to reach an element by.
    """

    def __init__(self, room: int = 512) -> None:
        self._make(room)

    def __len__(self) -> int:
        return self.view[0]

    def pop(self) -> int:
        """Take the last one."""
        view = self.view
        level = view[0]
        view[0] = level - 1
        return view[level]

    def take(self, count: int) -> list[int]:
        """Take the last `count` of them, in the order in which they were put."""
        end = self.view[0] + 1
        self.view[0] = end - 1 - count
        return self.view[end - count : end].tolist()

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

    def put_back(self, frames: Sequence[int] | NDArray[np.int64]) -> None:
        """Add some that had been taken, whatever node has them."""
        self.put(frames)

    def gather(self) -> None:
        """Have all of them at hand."""

    def held(self) -> NDArray[np.int64]:
        """Return a copy of them all, int64[n]."""
        return self.words[1 : 1 + len(self)].copy()

    def _make(self, room: int) -> None:
        words = np.zeros(room, np.int64)
        if hasattr(self, "words"):
            words[: len(self) + 1] = self.words[: len(self) + 1]
        self.words = words
        self.view = memoryview(words)


class NodeStack(Stack):
    """Stacks of frames of the nodes of a host, one of which is at hand; Linux has lists for each CPU and zone (pcp).

    Parameters
    ----------
    ends : int64[nodes]
        The first frame after those of each.
    """

    def __init__(self, ends: NDArray[np.int64]) -> None:
        super().__init__()
        self._ends = ends
        self._aside: dict[int, NDArray[np.int64]] = {}
        self.node = 0

    def turn(self, node: int) -> None:
        """Have frames of a node at hand."""
        if node != self.node:
            self._aside[self.node] = self.drop(len(self))
            self.put(self._aside.pop(node, ()))
            self.node = node

    def put_back(self, frames: Sequence[int] | NDArray[np.int64]) -> None:
        """Add some that had been taken, each to the stack of its node."""
        frames = np.asarray(frames, np.int64)
        nodes = np.searchsorted(self._ends, frames, side="right")
        for node in np.unique(nodes).tolist():
            own = frames[nodes == node]
            if node == self.node:
                self.put(own)
            else:
                self._aside[node] = np.concatenate((self._aside.get(node, own[:0]), own))

    def gather(self) -> None:
        """Have all of them at hand, whatever node they are of."""
        for node in sorted(self._aside):
            self.put(self._aside.pop(node))

    def held(self) -> NDArray[np.int64]:
        """Return a copy of them all, int64[n]."""
        return np.concatenate((super().held(), *(self._aside[node] for node in sorted(self._aside))))
