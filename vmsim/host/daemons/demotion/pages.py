"""The pages of a VM that lie in one node, as lists know a memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import LiveVm
from vmsim.frames.nodes import node_of

__all__ = ["NodePages", "NodeVm"]

Words = NDArray[np.int64]


class NodePages:
    """Those of a memory's pages that lie in a node, of a large one its first number.

    Parameters
    ----------
    memory : GuestMemory or NativeMemory
    node : int
    """

    def __init__(self, memory: Any, node: int) -> None:
        self.memory = memory
        self.node = node
        self.owner = memory.owner
        self.second = memory.second
        self.flushes_each = memory.flushes_each

    @property
    def numbers(self) -> int:
        """How many numbers its pages have."""
        return int(self.memory.numbers)

    def present(self) -> Words:
        """Return the numbers of all that are there, int64[n], ascending."""
        numbers = self.memory.heads(self.memory.present())
        return np.asarray(numbers[self._here(numbers)])

    def holds_each(self, numbers: Words) -> NDArray[np.bool_]:
        """Return which of some numbers, int64[n], are such pages, bool[n]."""
        found = self.memory.holds_each(numbers)
        found[found] = self._here(numbers[found])
        return np.asarray(found)

    def _here(self, numbers: Words) -> NDArray[np.bool_]:
        return np.asarray(node_of(self.memory.host.zone, self.memory.frames_each(numbers)) == self.node)


class NodeVm:
    """A VM, with those of its pages alone that lie in a node."""

    def __init__(self, vm: LiveVm, node: int) -> None:
        self.vm = vm
        self.pages = NodePages(vm.pages, node)

    @property
    def able(self) -> bool:
        """Whether its pages may be moved."""
        return self.vm.able
