"""What is in the swap cache, and what is said of pages that come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel, leaf
from vmsim.machine.memory import zeroed

__all__ = [
    "AHEAD",
    "BUSY",
    "FAILED",
    "READING",
    "UNWRITTEN",
    "WRITING",
    "Around",
    "Back",
    "Fetched",
    "SwapCache",
    "begin_reads",
    "flags_of",
    "in_cache",
    "leave",
]

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


class Fetched(NamedTuple):
    """A page that a vCPU has waited for, and that is in the swap cache.

    Attributes
    ----------
    slot : int
        Its slot.
    since : int
        The cycle at which the vCPU began to wait.
    waited : bool
        Whether it had to.
    cycles : int
        What the host has done for others that are read with it.
    """

    slot: int
    since: int
    waited: bool
    cycles: int


class Around(NamedTuple):
    """Where a page lies in its memory, for reading others with it.

    Attributes
    ----------
    key : object
        The memory, or address space.
    number : int
        The page's number in it.
    slots : callable
        Returns the slots of those of a range of pages that are away, int64[n], in their order.
    """

    key: Any
    number: int
    slots: Callable[[range], Words]


class _Place(IntEnum):
    """Columns of a slot in the swap cache; those that are not written just now are a ring of links."""

    PFN = 0
    STAMP = 1
    FLAGS = 2
    AFTER = 3  # 1 more than the slot that came next; 0: it is in no ring
    BEFORE = 4
    SIZE = 5
    COUNT = 0  # in the last row: how many pages there are; and of those that there were, the last one's stamp


@leaf
def _link(cache, slot):  # type: ignore[no-untyped-def]
    """Note that a page is not written just now: it comes last, unless it is in the ring already."""
    ring = len(cache) - 1
    if cache[slot, _Place.AFTER]:
        return
    last = cache[ring, _Place.BEFORE] - 1
    cache[slot, _Place.BEFORE] = last + 1
    cache[slot, _Place.AFTER] = ring + 1
    cache[last, _Place.AFTER] = slot + 1
    cache[ring, _Place.BEFORE] = slot + 1


@leaf
def _unlink(cache, slot):  # type: ignore[no-untyped-def]
    """Note that it is written, or in the cache no more."""
    after, before = cache[slot, _Place.AFTER] - 1, cache[slot, _Place.BEFORE] - 1
    if after < 0:
        return
    cache[before, _Place.AFTER] = after + 1
    cache[after, _Place.BEFORE] = before + 1
    cache[slot, _Place.AFTER] = 0
    cache[slot, _Place.BEFORE] = 0


@leaf
def _enter(cache, slot, pfn, flags):  # type: ignore[no-untyped-def]
    """Put a page in; return its stamp."""
    ring = len(cache) - 1
    cache[ring, _Place.COUNT] += 1
    cache[ring, _Place.STAMP] += 1
    cache[slot, _Place.PFN] = pfn
    cache[slot, _Place.STAMP] = cache[ring, _Place.STAMP]
    cache[slot, _Place.FLAGS] = flags
    if flags & WRITING == 0:
        _link(cache, slot)
    return cache[slot, _Place.STAMP]


@leaf
def leave(cache, slot):  # type: ignore[no-untyped-def]
    """Take a page out; return the flags that it had."""
    cache[len(cache) - 1, _Place.COUNT] -= 1
    cache[slot, _Place.STAMP] = 0
    _unlink(cache, slot)
    return cache[slot, _Place.FLAGS]


@kernel
def _enter_each(cache, slots, pfns, flags, stamps):  # type: ignore[no-untyped-def]
    """Put pages in, int64[n]; fill in their stamps."""
    for at in range(len(slots)):
        stamps[at] = _enter(cache, slots[at], pfns[at], flags)


@kernel
def _leave_each(cache, slots):  # type: ignore[no-untyped-def]
    """Take pages out, int64[n]."""
    for at in range(len(slots)):
        leave(cache, slots[at])


@kernel
def _settle_each(cache, slots, flags):  # type: ignore[no-untyped-def]
    """Note that the device is done with pages, int64[n]."""
    for at in range(len(slots)):
        cache[slots[at], _Place.FLAGS] = cache[slots[at], _Place.FLAGS] & ~BUSY | flags
        _link(cache, slots[at])


@kernel
def _list_idle(cache, slots):  # type: ignore[no-untyped-def]
    """Fill `slots`, int64[n], with those that are not written just now, the first before the others; return how many.

    If there are more than n, none is filled in.
    """
    ring = len(cache) - 1
    count, slot = 0, cache[ring, _Place.AFTER] - 1
    while slot != ring:
        if count < len(slots):
            slots[count] = slot
        count += 1
        slot = cache[slot, _Place.AFTER] - 1
    return count


@leaf
def in_cache(cache, slot):  # type: ignore[no-untyped-def]
    """Return whether the page in a slot is in the cache."""
    return cache[slot, _Place.STAMP] != 0


@leaf
def flags_of(cache, slot):  # type: ignore[no-untyped-def]
    """Return the flags of a page that is in the cache."""
    return cache[slot, _Place.FLAGS]


@kernel
def _leave_out(cache, slots, slot):  # type: ignore[no-untyped-def]
    """Move those of some slots, int64[n], that are not in the cache, nor `slot`, to the front; return how many."""
    count = 0
    for at in range(len(slots)):
        if slots[at] != slot and cache[slots[at], _Place.STAMP] == 0:
            slots[count] = slots[at]
            count += 1
    return count


@leaf
def begin_reads(cache, slots, pfns, stamps):  # type: ignore[no-untyped-def]
    """Put pages in that are about to be read, int64[n], all but the first ahead, and sort them by their slots.

    Their stamps are filled in.
    """
    for at in range(len(slots)):
        slot, pfn = slots[at], pfns[at]
        stamp = _enter(cache, slot, pfn, READING | AHEAD if at else READING)
        to = at
        while to and slots[to - 1] > slot:
            slots[to], pfns[to], stamps[to] = slots[to - 1], pfns[to - 1], stamps[to - 1]
            to -= 1
        slots[to], pfns[to], stamps[to] = slot, pfn, stamp


@kernel
def _begin_reads(cache, slots, pfns, stamps):  # type: ignore[no-untyped-def]
    """Do the same for who calls it from Python."""
    begin_reads(cache, slots, pfns, stamps)


@kernel
def _end_reads(cache, slots, stamps, there):  # type: ignore[no-untyped-def]
    """Note that pages have been read, int64[n]; `there` (bool[n]) says which are in the cache still.

    Returns how many are.
    """
    count = 0
    for at in range(len(slots)):
        there[at] = cache[slots[at], _Place.STAMP] == stamps[at]
        if there[at]:
            cache[slots[at], _Place.FLAGS] &= ~READING
            count += 1
    return count


@kernel
def _end_writes(cache, slots, stamps, there):  # type: ignore[no-untyped-def]
    """Take pages out that have been written, int64[n]; `there` (bool[n]) says which were in the cache still.

    Returns how many were.
    """
    count = 0
    for at in range(len(slots)):
        there[at] = cache[slots[at], _Place.STAMP] == stamps[at]
        if there[at]:
            leave(cache, slots[at])
            count += 1
    return count


class SwapCache:
    """Pages that are in memory and in a slot.

    Parameters
    ----------
    size : int
        Slots.

    Attributes
    ----------
    words : int64[size + 1, _Place.SIZE]
        What compiled code knows of each; the last one is of no slot, but ends the ring of links, and counts.
    pfns : int64[size]
        The frame of each.
    flags : int64[size]
        READING and so on.
    stamps : int64[size]
        In which order they came; 0: there is none of this slot. One that leaves and comes again has another.
    """

    def __init__(self, size: int) -> None:
        self.words: Words = zeroed(8 * _Place.SIZE * (size + 1)).view(np.int64).reshape(size + 1, _Place.SIZE)
        self.words[size, _Place.AFTER :] = size + 1
        each = self.words[:size]
        self.pfns, self.stamps, self.flags = (each[:, at] for at in (_Place.PFN, _Place.STAMP, _Place.FLAGS))
        self._last = self.words[size]

    def __len__(self) -> int:
        return int(self._last[_Place.COUNT])

    def __contains__(self, slot: int) -> bool:
        return bool(self.stamps[slot])

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self.stamps).tolist())

    def add(self, slots: Words, pfns: Words, flags: int) -> Words:
        """Put pages in, int64[n]; return their stamps, int64[n]."""
        stamps = np.empty(len(slots), np.int64)
        _enter_each(self.words, slots, pfns, flags, stamps)
        return stamps

    def begin_reads(self, slots: Words, pfns: Words) -> Words:
        """Put pages in that are about to be read, int64[n], all but the first ahead; return their stamps, int64[n].

        All three are sorted by the slots then.
        """
        stamps = np.empty(len(slots), np.int64)
        _begin_reads(self.words, slots, pfns, stamps)
        return stamps

    def end_reads(self, slots: Words, stamps: Words) -> tuple[NDArray[np.bool_], bool]:
        """Note that pages have been read, int64[n]; return which are in the cache still, bool[n], and if all."""
        there = np.empty(len(slots), np.bool_)
        return there, _end_reads(self.words, slots, stamps, there) == len(slots)

    def end_writes(self, slots: Words, stamps: Words) -> tuple[NDArray[np.bool_], bool]:
        """Take pages out that have been written, int64[n]; return which were there still, bool[n], and if all."""
        there = np.empty(len(slots), np.bool_)
        return there, _end_writes(self.words, slots, stamps, there) == len(slots)

    def without(self, slots: Words, slot: int) -> Words:
        """Return those of some slots, int64[n], that are not in the cache, nor `slot`."""
        return slots[: _leave_out(self.words, slots, slot)]

    def remove(self, slots: Words) -> None:
        """Take pages out, int64[n], each once."""
        _leave_each(self.words, slots)

    def write_again(self, slots: Words) -> None:
        """Note of pages, int64[n], that they are written once more."""
        for slot in slots.tolist():
            _unlink(self.words, slot)
        self.flags[slots] = WRITING

    def settle(self, slots: Words, flags: int) -> None:
        """Note of pages, int64[n], that the device is done with them."""
        _settle_each(self.words, slots, flags)

    def oldest(self) -> list[int]:
        """Return the slots of those that are not written just now, those that came first before the others."""
        found = np.empty(len(self), np.int64)
        slots: list[int] = found[: _list_idle(self.words, found)].tolist()
        if any(self.flags[slots] & UNWRITTEN):
            slots.sort(key=lambda slot: int(self.stamps[slot]))
        return slots
