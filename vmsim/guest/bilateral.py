"""A guest's page-frame allocator whose state its host shares and changes (HyperAlloc, EuroSys 2025, on LLFree).

LLFree has a word for each huge frame of 2 MiB: how many of its frames are free, whether it is allocated as a whole (A),
and whether its memory is the host's (E). The host maps these words and changes them by compare-and-swap as the guest
does, so that it takes memory without the guest's help, and the guest knows that it has. Here the kernel's allocator is
the buddy allocator that all guests have; which huge frames are free follows from its free blocks. Where Linux's finds a
frame is another matter than where LLFree's would.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Vcpu, Words
from vmsim.frames.buddy import free_many
from vmsim.frames.isolation import find_free, isolate_range
from vmsim.frames.records import PAGEBLOCK
from vmsim.guest.frames import GuestFrames

__all__ = ["SharedFrames"]

Install = Callable[[Vcpu, int], Steps[None]]


class SharedFrames:
    """The huge frames of a kernel's allocator.

    Parameters
    ----------
    frames : GuestFrames
        The allocator.
    install : callable
        Has the host give a huge frame its memory, by an exit of a vCPU's.
    hold_back : callable
        Told whether compiled code may take no frame, since it could be one without memory.

    Attributes
    ----------
    evicted : bool[huge frames]
        Which have no memory of the host's.
    held : int
        Frames that the host has allocated.
    """

    def __init__(self, frames: GuestFrames, install: Install, hold_back: Callable[[bool], None]) -> None:
        self.frames = frames
        self.install = install
        self.hold_back = hold_back
        self.evicted: NDArray[np.bool_] = np.zeros(len(frames.frames) >> PAGEBLOCK, np.bool_)
        self.held = 0
        self._left = 0  # huge frames that are evicted

    def free(self) -> NDArray[np.bool_]:
        """Return which huge frames are free as a whole, bool[huge frames]."""
        found = np.empty_like(self.evicted)
        find_free(self.frames.frames, PAGEBLOCK, found)
        return found

    @property
    def spare(self) -> int:
        """Huge frames that can be taken until no more is free than the kernel must have."""
        return max(0, int(self.frames.zone["free"][0]) - self.frames.floor) >> PAGEBLOCK

    def evict(self, numbers: Words) -> None:
        """Have the kernel ask for memory before it uses some huge frames, int64[n]."""
        self._left += int(np.count_nonzero(~self.evicted[numbers]))
        self.evicted[numbers] = True
        self.hold_back(self._left > 0)

    def restored(self, number: int) -> None:
        """Note that a huge frame has memory again."""
        self._left -= int(self.evicted[number])
        self.evicted[number] = False
        self.hold_back(self._left > 0)

    def take(self, numbers: Words) -> None:
        """Allocate huge frames that are free, int64[n], so that the kernel does not get them."""
        taken, frames = np.empty(1 << PAGEBLOCK, np.int64), self.frames
        for first in (numbers << PAGEBLOCK).tolist():
            limit = first + (1 << PAGEBLOCK)
            count = int(isolate_range(frames.zone, frames.frames, first, limit, frames.owner, taken))
            assert count == len(taken), "a huge frame was not free"
        self._hold(len(numbers) << PAGEBLOCK)

    def give(self, numbers: Words) -> None:
        """Free what was taken, int64[n]."""
        free_many(self.frames.zone, self.frames.frames, PAGEBLOCK, numbers << PAGEBLOCK)
        self._hold(-len(numbers) << PAGEBLOCK)

    def _hold(self, frames: int) -> None:
        self.held += frames
        self.frames.offline += frames

    def bring(self, vcpu: Vcpu, gfn: int, order: int) -> Steps[None]:
        """Ask for the memory of what 2**order frames, just allocated, lie in, where the host has taken it."""
        last = gfn + (1 << order) - 1 >> PAGEBLOCK
        for number in range(gfn >> PAGEBLOCK, min(last + 1, len(self.evicted))) if self._left else ():
            if self.evicted[number]:
                yield from self.install(vcpu, number)
