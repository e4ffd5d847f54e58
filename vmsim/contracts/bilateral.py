"""A guest's page-frame allocator as its host shares it, by huge frames of 2 MiB (HyperAlloc)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts.steps import Words

__all__ = ["SharedAllocator"]


class SharedAllocator(Protocol):
    """What host and guest share.

    Attributes
    ----------
    evicted : bool[huge frames]
        Which have no memory of the host's: the guest asks for some before it uses a frame of one (LLFree's E).
    """

    evicted: NDArray[np.bool_]

    def free(self) -> NDArray[np.bool_]:
        """Return which huge frames are free as a whole, bool[huge frames]."""
        ...

    @property
    def spare(self) -> int:
        """Huge frames that can be taken, by count, until the guest has no more free than it must have."""
        ...

    def evict(self, numbers: Words) -> None:
        """Have the guest ask for memory before it uses some huge frames, int64[n]."""

    def restored(self, number: int) -> None:
        """Note that a huge frame has memory again."""

    def take(self, numbers: Words) -> None:
        """Allocate huge frames that are free, so that the guest does not get them."""

    def give(self, numbers: Words) -> None:
        """Free what was taken."""
