"""Frames that several address spaces map after a fork."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.machine.memory import zeroed
from vmsim.tables.copies import drop_frames

__all__ = ["Sharing"]


class Sharing:
    """How many entries map each 4 KiB frame besides the first, as Linux's page map counts.

    Parameters
    ----------
    frames : record array
        The frames of the guest. A frame that is shared has no reverse map (0): no one entry maps it.
    """

    def __init__(self, frames: NDArray[Any]) -> None:
        self._frames = frames
        self._more: NDArray[np.int32] | None = None  # made by the first fork

    @property
    def used(self) -> bool:
        """Whether anything has ever been shared."""
        return self._more is not None

    def entries(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many entries map each frame that at least one does, int64[n]."""
        more = np.zeros(len(frames), np.int64) if self._more is None else self._more[frames].astype(np.int64)
        return 1 + more

    def alone(self, firsts: NDArray[np.int64], order: int) -> NDArray[np.bool_]:
        """Return of which pages of 2**order frames every part is mapped once only, bool[n]."""
        if self._more is None:
            return np.ones(len(firsts), bool)
        return np.asarray((self._more[_parts(firsts, order)] == 0).reshape(len(firsts), 1 << order).all(axis=1))

    def counts(self) -> NDArray[np.int32]:
        """Return how many entries map each frame besides the first, int32[frames]; who adds one clears the rmap."""
        if self._more is None:
            self._more = zeroed(4 * len(self._frames)).view(np.int32)
        return self._more

    def add(self, firsts: NDArray[np.int64], order: int) -> None:
        """Note one more entry for each of the pages of 2**order frames."""
        parts = _parts(firsts, order)
        self.counts()[parts] += 1
        self._frames["rmap"][parts] = 0

    def one_alone(self, first: int, order: int) -> bool:
        """Return whether every part of one page of 2**order frames is mapped once only."""
        if self._more is None:
            return True
        return not (self._more[first : first + (1 << order)].any() if order else self._more[first])

    def leave(self, frame: int) -> None:
        """Note one entry fewer for a shared frame."""
        assert self._more is not None
        self._more[frame] -= 1

    def drop(self, firsts: NDArray[np.int64], order: int) -> list[tuple[NDArray[np.int64], int]]:
        """Note one entry fewer for each of the pages; return the blocks (frames, order) that nobody maps any more."""
        if self._more is None:
            return [(firsts, order)]
        if order == 0:
            firsts = firsts.copy()
            return [(firsts[: drop_frames(self._more, firsts)], 0)]
        whole = self.alone(firsts, order)
        return [(firsts[whole], order), *self.drop(_parts(firsts[~whole], order), 0)]


def _parts(firsts: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    """Return every frame of pages of 2**order frames."""
    return (firsts[:, None] + np.arange(1 << order)).ravel() if order else firsts
