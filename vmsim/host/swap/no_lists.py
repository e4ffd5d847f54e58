"""A host that takes no pages of its own accord has nobody who keeps them in an order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NoLists"]

Words = NDArray[np.int64]


class NoLists:
    """Nobody keeps pages in an order, or wants to know what becomes of them."""

    def evicted(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Learn nothing."""

    def returned(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Learn nothing."""

    def released(self, slots: Words) -> None:
        """Learn nothing."""
