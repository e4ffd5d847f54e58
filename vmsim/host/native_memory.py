"""Memory of a program on the host itself, as the host's reclaim knows it: pages by frame, found by the reverse map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NO_FLUSH, Flush
from vmsim.frames.buddy import State, owned
from vmsim.host.bare import BareFrames
from vmsim.machine.formats import ACCESSED, FRAME, LARGE, PAGE_SHIFT, PRESENT
from vmsim.machine.memory import read_entry, width_of, write_entry

__all__ = ["NativeMemory"]

Words = NDArray[np.int64]


class NativeMemory:
    """The small pages of a program that one entry of its tables maps; what several map is left alone.

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
    """

    def __init__(self, frames: BareFrames, words: Words, *, levels: int) -> None:
        self.frames = frames
        self.words = words
        self.width = width_of(levels)
        self.second = self
        self.taken = self.returned = 0

    @property
    def numbers(self) -> int:
        """How many numbers its pages have: the host's frames."""
        return len(self.frames.frames)

    def holds(self, number: int) -> bool:
        """Whether a frame is a page of the program that may be taken."""
        frame = self.frames.frames[number]
        if frame["owner"] != self.frames.owner or frame["state"] != State.GUEST or frame["rmap"] <= 0:
            return False
        entry = int(read_entry(self.words, int(frame["rmap"]), self.width))
        return bool(entry & PRESENT) and not entry & LARGE and (entry & FRAME) >> PAGE_SHIFT == number

    def present(self) -> Words:
        """Return the frames that are such pages, int64[n], ascending."""
        mine = owned(self.frames.zone, self.frames.frames, self.frames.owner)
        return mine[[self.holds(number) for number in mine.tolist()]]

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
