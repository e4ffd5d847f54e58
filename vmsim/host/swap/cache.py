"""What is in the swap cache, and what is said of pages that come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import simpy

__all__ = ["Around", "Back", "CachedPage"]


class Back(NamedTuple):
    """A page that came back.

    Attributes
    ----------
    pfn : int
        Its frame, which is the VM's.
    cycles : int
        What the host did for it.
    slot : int
        The slot that still holds the same, or NO_SLOT.
    """

    pfn: int
    cycles: int
    slot: int


class Around(NamedTuple):
    """Where a page lies in its memory, for reading others with it.

    Attributes
    ----------
    key : object
        The memory, or address space.
    number : int
        The page's number in it.
    slot : callable
        Returns the slot of a page by its number, or None.
    """

    key: Any
    number: int
    slot: Callable[[int], int | None]


class CachedPage:
    """A page in the swap cache.

    Attributes
    ----------
    slot, pfn : int
        Where it is on the device, and in memory.
    ready : Event or None
        It is being read until then.
    writing : bool
        It is being written.
    unwritten : bool
        The device does not have it: a write failed.
    ahead : bool
        It was read ahead, and nobody has wanted it.
    failed : bool
        It could not be read.
    gone : bool
        Nobody wants it any more; its frame is free when the device is done.
    """

    __slots__ = ("ahead", "failed", "gone", "pfn", "ready", "slot", "unwritten", "writing")

    def __init__(self, slot: int, pfn: int) -> None:
        self.slot = slot
        self.pfn = pfn
        self.ready: simpy.Event | None = None
        self.writing = self.unwritten = self.ahead = self.failed = self.gone = False

    @property
    def busy(self) -> bool:
        """Whether the device works on its frame."""
        return self.ready is not None or self.writing
