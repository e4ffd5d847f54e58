"""Memory of a program on the host itself, as the host's reclaim knows it: pages by frame, found by the reverse map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NO_FLUSH, Flush, Vcpu
from vmsim.frames.buddy import State, owned
from vmsim.host.bare import BareFrames
from vmsim.host.identity import PageIdentity
from vmsim.machine.formats import ACCESSED, FRAME, LARGE, PAGE_SHIFT, PRESENT, WRITE
from vmsim.machine.memory import read_entry, width_of, write_entry
from vmsim.tables.ranges import lead_elsewhere

__all__ = ["NativeMemory"]

Words = NDArray[np.int64]

_ANYWHERE = -1  # the number of a shared page: its entries are found by its frame


class Counts(Protocol):
    """What a program's kernel knows of frames that several entries map."""

    broken: int

    def counts(self) -> NDArray[np.int32]:
        """Return how many entries map each frame besides the first."""
        ...


class NativeMemory:
    """The small pages of a program that one entry of its tables maps; what several map is left alone.

    A page that comes to share a frame has its entry lead there, read-only (mm/ksm.c, replace_page); the kernel copies
    it when it is written to.

    A page that is taken has its entry cleared (Linux, mm/rmap.c, try_to_unmap_one), and the next access is a page fault
    of the program's kernel, which maps another frame. What data pages held is not simulated, and tables are not taken.

    Parameters
    ----------
    frames : BareFrames
        Where its frames come from.
    words : int64[:]
        Physical memory.
    levels : int
        Of the program's tables.

    Attributes
    ----------
    taken, returned : int
        Pages that the host took; which of them came back nobody tells.
    merged, broken : int
        As of `GuestMemory`.
    sharing : Counts
        How many entries of the program map each frame; given once its kernel is there.
    roots : callable
        Returns the roots (hpas) of all its processes.
    identity : PageIdentity
        What its pages hold.
    forget : callable
        As of `GuestMemory`.
    """

    sharing: Counts
    roots: Callable[[], list[int]]
    identity: PageIdentity
    forget: Callable[[Flush, Vcpu | None], int]

    def __init__(self, frames: BareFrames, words: Words, *, levels: int) -> None:
        self.frames = frames
        self.host = frames.host
        self.words = words
        self.owner = frames.owner
        self.levels = levels
        self.width = width_of(levels)
        self.second = self
        self.taken = self.returned = 0
        self.merged = 0
        self.forget = lambda flush, vcpu: 0
        frames.left = self._left

    @property
    def broken(self) -> int:
        """Pages that the program's kernel has copied out of shared frames."""
        return self.sharing.broken

    @property
    def numbers(self) -> int:
        """How many numbers its pages have: the host's frames."""
        return len(self.frames.frames)

    def holds(self, number: int) -> bool:
        """Whether a frame is a page of the program that may be taken."""
        return bool(self._which(np.array([number]))[0])

    def present(self) -> Words:
        """Return the frames that are such pages, int64[n], ascending."""
        mine = owned(self.frames.zone, self.frames.frames, self.frames.owner)
        return mine[self._which(mine)]

    def _which(self, numbers: Words) -> NDArray[np.bool_]:
        """Return which frames are pages of the program that one small entry maps, bool[n]."""
        records = self.frames.frames
        places = records["rmap"][numbers]
        mine = (records["owner"][numbers] == self.frames.owner) & (records["state"][numbers] == State.GUEST)
        entries = read_entry(self.words, np.maximum(places, 0), self.width)
        small = (entries & (PRESENT | LARGE)) == PRESENT
        found: NDArray[np.bool_] = mine & (places > 0) & small & ((entries & FRAME) >> PAGE_SHIFT == numbers)
        return found

    def frame_of(self, number: int) -> int:
        """Return the frame: it is the number."""
        return number

    def pinned(self, number: int) -> bool:
        """Whether a device works on a page."""
        return bool(self.frames.host.pins[number])

    def take(self, first: int, count: int) -> Flush:
        """Take those of `count` frames from `first` on that are such pages; they are the host's, and free."""
        pfns = [pfn for pfn in range(first, first + count) if self.holds(pfn) and not self.pinned(pfn)]
        if not pfns:
            return NO_FLUSH
        records = self.frames.frames
        for pfn in pfns:
            write_entry(self.words, int(records["rmap"][pfn]), np.int64(0), self.width)
            records["rmap"][pfn] = 0
        self.taken += len(pfns)
        self.frames.give(np.array(pfns), 0)
        return Flush(linear=True)

    def share(self, number: int, pfn: int) -> Flush:
        """Have a page lie in a frame that others read too, or its own become such a one; as `GuestMemory.share`.

        Raises
        ------
        ValueError
            The frame is no small page of one entry, or `pfn` is not shared.
        """
        shared = self.host.shared
        if not self.holds(number) or (pfn not in shared and pfn != number):
            raise ValueError(f"frame {number} cannot come to share frame {pfn}")
        if self.pinned(number):
            return NO_FLUSH
        place = int(self.frames.frames["rmap"][number])
        entry = int(read_entry(self.words, place, self.width))
        write_entry(self.words, place, np.int64(entry & ~FRAME & ~WRITE | pfn << PAGE_SHIFT), self.width)
        if pfn == number:
            self.frames.held -= 1
            self.host.make_shared(pfn)
        else:
            self.frames.frames["rmap"][number] = 0
            self.frames.give(np.array([number]), 0)
        if any(memory is self for memory, _ in shared.users(pfn)):
            self.sharing.counts()[pfn] += 1
        shared.add(pfn, self, _ANYWHERE)
        self.merged += 1
        return Flush(linear=True)

    def close(self) -> None:
        """Leave all shared frames: the program is no more."""
        for pfn in {pfn for pfn, _ in self.host.shared.of(self.owner)}:
            self._left(pfn)

    def forget_all(self, flush: Flush) -> None:
        """Have the processors forget what a flush says."""
        self.forget(flush, None)

    def leave_frame(self, number: int) -> Flush:
        """Clear nothing: the entries are changed at once. What is kept of them is to be forgotten."""
        return Flush(linear=True)

    def enter_frame(self, numbers: list[int], old: int, new: int) -> None:
        """Have the entries that led to a shared frame lead to another; they are found by all tables.

        Linux finds them by the areas of memory that the page can be in (mm/ksm.c, `rmap_walk_ksm`).
        """
        for root in self.roots():
            lead_elsewhere(self.words, root, self.levels, old, new)
        counts = self.sharing.counts()
        counts[new], counts[old] = counts[old], 0

    def _left(self, pfn: int) -> None:
        """Note that no entry of the program leads to a shared frame any more."""
        if self.host.shared.remove_owner(pfn, self.owner):
            self.host.free_shared(pfn)

    def age(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were accessed, by the A flags of their entries; `clear` them."""
        found = np.zeros(count, np.bool_)
        for at in range(count):
            if self.holds(first + at):
                place = int(self.frames.frames["rmap"][first + at])
                entry = int(read_entry(self.words, place, self.width))
                found[at] = entry & ACCESSED != 0
                if clear:
                    write_entry(self.words, place, np.int64(entry & ~ACCESSED), self.width)
        return found
