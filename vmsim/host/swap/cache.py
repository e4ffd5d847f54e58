"""What is in the swap cache, and what is said of pages that come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.machine.memory import zeroed

__all__ = ["AHEAD", "BUSY", "FAILED", "READING", "UNWRITTEN", "WRITING", "Around", "Back", "SwapCache"]

READING: Final = 1  # the device reads it
WRITING: Final = 2  # or writes it
UNWRITTEN: Final = 4  # the device does not have it: a write failed
AHEAD: Final = 8  # it was read ahead, and nobody has wanted it
FAILED: Final = 16  # it could not be read
BUSY: Final = READING | WRITING

Words = NDArray[np.int64]


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


class SwapCache:
    """Pages that are in memory and in a slot.

    Parameters
    ----------
    size : int
        Slots.

    Attributes
    ----------
    pfns : int64[size]
        The frame of each.
    flags : uint8[size]
        READING and so on.
    stamps : int64[size]
        In which order they came; 0: there is none of this slot. One that leaves and comes again has another.
    idle : dict
        Slots of those that are not written just now, those that came first before the others.
    """

    def __init__(self, size: int) -> None:
        self.pfns: Words = zeroed(8 * size).view(np.int64)
        self.stamps: Words = zeroed(8 * size).view(np.int64)
        self.flags = zeroed(size)
        self.idle: dict[int, None] = {}
        self._count = self._stamp = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, slot: int) -> bool:
        return bool(self.stamps[slot])

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self.stamps).tolist())

    def add(self, slots: Words, pfns: Words, flags: int | NDArray[np.uint8]) -> Words:
        """Put pages in, int64[n]; return their stamps. The device is to write all of them, or none.

        `flags` are those of all, or of each, uint8[n].
        """
        stamps = np.arange(self._stamp + 1, self._stamp + len(slots) + 1)
        self._stamp += len(slots)
        self._count += len(slots)
        self.pfns[slots], self.stamps[slots], self.flags[slots] = pfns, stamps, flags
        if not (flags if isinstance(flags, int) else int(flags[0])) & WRITING:
            self.idle.update(dict.fromkeys(slots.tolist()))
        return stamps

    def remove(self, slots: Words) -> None:
        """Take pages out, int64[n], each once."""
        self.stamps[slots] = 0
        self._count -= len(slots)
        if self.idle:
            for slot in slots.tolist():
                self.idle.pop(slot, None)

    def settle(self, slots: Words, flags: int) -> None:
        """Note of pages, int64[n], that the device is done with them."""
        self.flags[slots] &= 255 & ~BUSY
        self.flags[slots] |= flags
        for slot in slots.tolist():
            self.idle.setdefault(slot)

    def oldest(self) -> list[int]:
        """Return the slots of those that are not written just now, those that came first before the others."""
        slots = [*self.idle]
        if any(self.flags[slots] & UNWRITTEN):
            slots.sort(key=lambda slot: int(self.stamps[slot]))
        return slots
