"""Pages that lie in the host's swap cache: compiled code maps them, and the host notes that they are the VM's again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from vmsim.contracts import MemorySlot, SwapPlace
from vmsim.jit import resolved
from vmsim.monitor.backing.commit import NestedMode, bring_cached

__all__ = ["Bringing"]

_BROUGHT = int(SwapPlace.BROUGHT)


class Bringing(ABC):
    """The part of `HostPages` that brings pages back, whose attributes these are."""

    slot: MemorySlot
    compiled: bool
    _mode: NestedMode
    _bring: Callable[..., Any] | None = None

    @property
    @abstractmethod
    def nested(self) -> NestedMode:
        """Its tables as compiled code fills them."""

    def bring_cached(self, gfn: int, write: bool) -> int:
        """Map a page of the host's swap cache, as compiled code does; return the cycles, or -1 where that cannot."""
        if not self.compiled:
            return -1
        mode = self.nested
        if self._bring is None:
            self._bring = resolved(bring_cached, mode, gfn, write)
        return int(self._bring(mode, gfn, write))

    def brought(self) -> None:
        """Have the host note what a run of compiled code has brought back from its swap cache."""
        if len(swap := self._mode.swap) and swap[_BROUGHT]:
            self.slot.brought()
