"""Memory of a program that runs on the host itself: frames straight from the host's allocator, no monitor."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.host.memory import HostMemory
from vmsim.machine.buddy import State, assign
from vmsim.machine.stack import Stack

__all__ = ["BareFrames"]

_BATCH = 64  # frames taken from the buddy allocator at a time (Linux's per-cpu page lists)


class BareFrames:
    """The host's frames, as a kernel that needs no other sees them."""

    def __init__(self, host: HostMemory, *, owner: int) -> None:
        self.host = host
        self.owner = owner
        self.zone = host.zone
        self.frames = host.frames
        self.ready = Stack()  # taken from the allocator, not yet handed out

    def allocate(self, vcpu: Any, order: int) -> Generator[simpy.Event, Any, int]:
        """Return the first of 2**order frames; wait while the host is below its min watermark."""
        if order:
            if vcpu.owed:
                yield vcpu.settle()
            return self.host.take_block(self.owner, order, State.GUEST)
        if not self.ready:
            if vcpu.owed:
                yield vcpu.settle()
            pfns = self.host.take(self.owner, _BATCH, State.GUEST, reserve=self.host.marks.min)
            if not len(pfns):
                pfns = yield from vcpu.wait(
                    self.host.request(self.owner, _BATCH, State.GUEST, asker=self.owner), "host_wait"
                )
            self.ready.put(pfns[::-1])
        return self.ready.pop()

    def allocate_table(self, vcpu: Any) -> Generator[simpy.Event, Any, int]:
        """Return a frame for a page table; wait while the host is below its min watermark."""
        if vcpu.owed:
            yield vcpu.settle()
        pfns = self.host.take(self.owner, 1, State.TABLE, reserve=self.host.marks.min)
        if not len(pfns) and self.ready:  # as Linux drains its per-cpu lists before it gives up
            pfns = self.ready.drop(1)
            assign(self.frames, pfns, self.owner, int(State.TABLE))
        if not len(pfns):
            pfns = yield from vcpu.wait(self.host.request(self.owner, 1, State.TABLE, asker=self.owner), "host_wait")
        return int(pfns[0])

    def has_block(self, order: int) -> bool:
        """Whether a block of 2**order frames is free above the min watermark; the host notes if none is."""
        return order == 0 or self.host.has_block(self.owner, order)

    def give(self, pfns: NDArray[np.int64], order: int) -> None:
        """Take back blocks of 2**order frames, which are the host's at once."""
        self.host.give(pfns, order)

    def give_tables(self, pfns: NDArray[np.int64]) -> None:
        """Take back frames that were tables."""
        self.host.give(pfns, 0)
