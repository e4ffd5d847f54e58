"""Guest-physical memory as a guest's kernel sees it: its own buddy allocator over its own frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.base.errors import GuestMemoryError
from vmsim.frames.buddy import NO_FRAME, State, allocate, allocate_many, free_many, make_zone, use
from vmsim.frames.stack import Stack
from vmsim.guest.demand import READY_BATCH

__all__ = ["Backing", "GuestFrames", "GuestMemoryError", "Vcpu"]

_HIGH = 6 * READY_BATCH  # frames kept ready at most (their high mark)


class Vcpu(Protocol):
    """What software that runs on behalf of a vCPU needs of it."""

    first_touch: Counter[str]  # cycles by cause, of those used so far

    @property
    def now(self) -> int:
        """The cycle the vCPU has reached, what it owes included."""
        ...

    def owe(self, cause: str, cycles: int) -> None:
        """Use cycles, to be paid in simulated time before anything shared is touched."""

    def first(self) -> AbstractContextManager[None]:
        """Count the cycles of what is done inside as those of a first touch."""
        ...

    def settle(self) -> simpy.Event:
        """Return an event that pays what is owed."""
        ...

    @property
    def slack(self) -> int:
        """Cycles until something else happens; 0 if nothing may be done ahead of simulated time."""
        ...

    def wait(self, event: simpy.Event, cause: str) -> Generator[simpy.Event, Any, Any]:
        """Give up the core until `event`; return its value."""
        ...


class Backing(Protocol):
    """The monitor, as far as guest-physical memory needs it."""

    def touch(self, vcpu: Vcpu, gfn: int, order: int) -> Generator[simpy.Event, Any, None]:
        """Write to 2**order frames: whichever lacks a host frame exits and gets one."""
        ...


class GuestFrames:
    """The frames of a VM and the allocator of its kernel."""

    def __init__(self, size: int, backing: Backing, *, owner: int) -> None:
        self.zone, self.frames = make_zone(size)
        self.backing = backing
        self.owner = owner
        self.ready = Stack()  # taken from the allocator, not yet handed out

    def allocate_table(self, vcpu: Vcpu) -> Generator[simpy.Event, Any, int]:
        """Return a frame for a page table, from the pageblocks that tables are kept in.

        Raises
        ------
        GuestMemoryError
            No frame is left.
        """
        gfn = int(allocate(self.zone, self.frames, 0, int(State.TABLE), self.owner))
        if gfn == NO_FRAME and self.ready:  # as Linux drains its per-cpu lists before it gives up
            oldest = self.ready.drop(1)
            use(self.frames, oldest, int(State.TABLE))
            gfn = int(oldest[0])
        if gfn == NO_FRAME:
            raise GuestMemoryError
        yield from self.backing.touch(vcpu, gfn, 0)
        return gfn

    def allocate(self, vcpu: Vcpu, order: int) -> Generator[simpy.Event, Any, int]:
        """Return the first of 2**order frames, cleared: the first write to a frame makes the host back it.

        Raises
        ------
        GuestMemoryError
            No free block of that order is left.
        """
        gfn = self._one() if order == 0 else int(self._block(order))
        if gfn == NO_FRAME:
            raise GuestMemoryError
        yield from self.backing.touch(vcpu, gfn, order)
        return gfn

    def has_block(self, order: int) -> bool:
        """Whether a block of 2**order frames is free."""
        heads = self.zone["heads"][0]
        return order == 0 or bool((heads[:, order:] != NO_FRAME).any())

    def give(self, gfns: NDArray[np.int64], order: int) -> None:
        """Take back blocks of 2**order frames; the host's frames stay behind them.

        Single frames are kept ready, and the last one given is the first to be handed out again; what is too much
        goes to the buddy allocator, the oldest first.
        """
        if order:
            free_many(self.zone, self.frames, order, gfns)
            return
        self.ready.put(gfns)
        if len(self.ready) > _HIGH:
            free_many(self.zone, self.frames, 0, self.ready.drop(len(self.ready) - _HIGH + READY_BATCH))

    def give_tables(self, gfns: NDArray[np.int64]) -> None:
        """Take back frames that were tables."""
        free_many(self.zone, self.frames, 0, gfns)

    def _one(self) -> int:
        if not self.ready:
            batch = np.empty(READY_BATCH, np.int64)
            got = allocate_many(self.zone, self.frames, 0, int(State.GUEST), self.owner, batch)
            if not got:
                return NO_FRAME
            self.ready.put(batch[:got][::-1])
        return self.ready.pop()

    def _block(self, order: int) -> int:
        return int(allocate(self.zone, self.frames, order, int(State.GUEST), self.owner))
