"""Frames that several address spaces map after a fork."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.machine.memory import zeroed
from vmsim.tables.copies import drop_frames, share_frames

__all__ = ["Sharing"]


_NONE = np.empty(0, np.int32)


class Sharing:
    """How many entries map each 4 KiB frame besides the first, as Linux's page map counts.

    Parameters
    ----------
    frames : record array
        The frames of the guest. A frame that is shared has no reverse map (0): no one entry maps it.

    Attributes
    ----------
    broken : int
        Pages that were copied because the host has others share their frame (of a program on the host itself).
    """

    def __init__(self, frames: NDArray[Any]) -> None:
        self._frames = frames
        self._more: NDArray[np.int32] | None = None  # made by the first fork
        self.broken = 0

    @property
    def used(self) -> bool:
        """Whether anything has ever been shared."""
        return self._more is not None

    @property
    def more(self) -> NDArray[np.int32]:
        """As of `counts`, but empty where nothing has ever been shared."""
        return _NONE if self._more is None else self._more

    def entries(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many entries map each frame that at least one does, int64[n]."""
        more = np.zeros(len(frames), np.int64) if self._more is None else self._more[frames].astype(np.int64)
        return 1 + more

    def alone(self, firsts: NDArray[np.int64], order: int) -> NDArray[np.bool_]:
        """Return of which pages of 2**order frames every part is mapped once only, and the kernel's own, bool[n]."""
        own = np.asarray(self._frames["owner"][firsts] >= 0)
        if self._more is None:
            return own
        once = (self._more[_parts(firsts, order)] == 0).reshape(len(firsts), 1 << order)
        return np.asarray(own & once.all(axis=1))

    def counts(self) -> NDArray[np.int32]:
        """Return how many entries map each frame besides the first, int32[frames]; who adds one clears the rmap."""
        if self._more is None:
            self._more = zeroed(4 * len(self._frames)).view(np.int32)
        return self._more

    def add(self, firsts: NDArray[np.int64], order: int) -> None:
        """Note one more entry for each of the pages of 2**order frames."""
        share_frames(self.counts(), self._frames, firsts, order)

    def one_alone(self, first: int, order: int) -> bool:
        """Return whether every part of one page of 2**order frames is mapped once only, and the kernel's own."""
        if self.foreign(first):
            return False
        if self._more is None:
            return True
        return not (self._more[first : first + (1 << order)].any() if order else self._more[first])

    def foreign(self, frame: int) -> bool:
        """Return whether a frame is not the kernel's own to write to: the host has others share it (mm/ksm.c)."""
        return bool(self._frames["owner"][frame] < 0)

    def leave(self, frame: int) -> bool:
        """Note one entry fewer for a shared frame, whose page was copied; return whether no entry is left."""
        self.broken += self.foreign(frame)
        if self._more is None or not self._more[frame]:
            return True
        self._more[frame] -= 1
        return False

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
