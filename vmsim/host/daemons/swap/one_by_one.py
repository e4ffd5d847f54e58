"""A policy that names one victim after the other, as one that keeps lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Found, LiveVm, Victims

__all__ = ["OneByOne"]


class OneByOne:
    """Asks for as many victims as are wanted, of each VM by itself; how many pages that was a look at nobody knows.

    Parameters
    ----------
    victims : Victims
        Names them.
    """

    def __init__(self, victims: Victims) -> None:
        self.victims = victims
        self._named = 0

    @property
    def counts(self) -> dict[str, int]:
        """Victims that were named."""
        return {"scanned": self._named}

    def attach(self, vms: Sequence[LiveVm]) -> None:
        """Learn nothing."""

    def begin(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""

    def scan(self, vm: LiveVm, priority: int, goal: int) -> Found:
        """Name one in 2**priority of a VM's pages, at most `goal`."""
        wanted = min(goal, len(vm.pages.present()) >> priority)
        found: dict[int, None] = {}
        for _ in range(wanted):
            if (victim := self.victims.choose([vm])) is not None:
                found.setdefault(victim[1])
        self._named += len(found)
        return Found(np.array(sorted(found), np.int64), len(found), 0)

    def age(self, vm: LiveVm) -> Found:
        """Do nothing."""
        return Found(np.empty(0, np.int64), 0, 0)

    def keep(self, vm: LiveVm, number: int, *, active: bool) -> None:
        """Do nothing: it is on no list."""

    def evicted(self, memory: Any, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        """Learn nothing."""

    def returned(self, memory: Any, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        """Learn nothing."""

    def released(self, slots: NDArray[np.int64]) -> None:
        """Learn nothing."""
