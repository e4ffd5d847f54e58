"""A policy that names one victim after the other, as one that keeps lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Found, LiveVm, Victims

__all__ = ["OneByOne"]


class OneByOne:
    """Asks for as many victims as are wanted, of each VM by itself; how many pages that was a look at nobody knows.

    A page that came back is left once: it was accessed, by whoever waited for it. Linux maps it with its accessed flag
    set (mm/memory.c, `do_swap_page`); a monitor that reads a guest's table has no entry of its own to say so.

    Parameters
    ----------
    victims : Victims
        Names them.
    """

    def __init__(self, victims: Victims) -> None:
        self.victims = victims
        self._named = 0
        self._back: WeakKeyDictionary[Any, set[int]] = WeakKeyDictionary()

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
        back = self._back.setdefault(vm.pages, set())
        for _ in range(wanted):
            if (victim := self.victims.choose([vm])) is None:
                continue
            if victim[1] in back:
                back.remove(victim[1])
            else:
                found.setdefault(victim[1])
        self._named += len(found)
        return Found(np.array(sorted(found), np.int64), len(found), 0)

    def age(self, vm: LiveVm) -> Found:
        """Do nothing."""
        return Found(np.empty(0, np.int64), 0, 0)

    def keep(self, vm: LiveVm, number: int, *, active: bool) -> None:
        """Do nothing: it is on no list."""

    def evicted(self, memory: Any, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        """Forget that pages had come back."""
        self._back.setdefault(memory, set()).difference_update(numbers.tolist())

    def returned(self, memory: Any, numbers: NDArray[np.int64], slots: NDArray[np.int64]) -> None:
        """Note that pages came back."""
        self._back.setdefault(memory, set()).update(numbers.tolist())

    def released(self, slots: NDArray[np.int64]) -> None:
        """Learn nothing."""
