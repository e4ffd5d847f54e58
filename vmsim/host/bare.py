"""Memory of a program that runs on the host itself: frames straight from the host's allocator, no monitor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Stop, VmStopped
from vmsim.frames.buddy import owned, use
from vmsim.frames.records import NO_FRAME, State
from vmsim.frames.stack import Stack
from vmsim.host.limits import LIMIT_WAIT, MemoryLimit
from vmsim.host.memory import HostMemory

__all__ = ["BareFrames"]

_BATCH = 64  # frames taken from the buddy allocator at a time (Linux's per-cpu page lists)


class BareFrames:
    """The host's frames, as a kernel that needs no other sees them, up to a limit.

    Pages and page tables count, as in a memory cgroup (Linux mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst,
    memory.max), those that stand ready to be handed out among them. At the limit a large page is refused, and small
    ones are tried; then memory has run out.

    Parameters
    ----------
    host : HostMemory
        Where the frames come from.
    owner : int
        Whose they are to be.
    most : int
        Frames that it may have at once.

    Attributes
    ----------
    limit : MemoryLimit or None
        At which pages of it are taken so that it can have others.
    """

    batch = 0  # each is the host's to give
    kept = 0

    def __init__(self, host: HostMemory, *, owner: int, most: int) -> None:
        self.host = host
        self.owner = owner
        self.most = most
        self.limit: MemoryLimit | None = None
        self.held = 0  # frames that it has
        self.zone = host.zone
        self.frames = host.frames
        self.ready = Stack()  # taken from the allocator, not yet handed out
        self.freed: Callable[[NDArray[np.int64]], None] = lambda pfns: None  # told of pages whose frames go back
        self.left: Callable[[int], None] = _nobody  # told of a shared frame that no entry of the program leads to

    def allocate(self, vcpu: Any, order: int) -> Steps[int]:
        """Return the first of 2**order frames, NO_FRAME for a large block; wait while the host is below its watermark.

        Raises
        ------
        VmStopped
            The limit is reached.
        """
        if order:
            if vcpu.owed:
                yield vcpu.settle()
            if not self._room(1 << order) or (self.limit and self.limit.allows(1 << order) < 1 << order):
                return NO_FRAME
            pfn = self.host.take_block(self.owner, order, State.GUEST)
            self.held += (pfn != NO_FRAME) << order
            return pfn
        if not self.ready and self.held >= self.most:
            self.ready.gather()
        if not self.ready:
            if vcpu.owed:
                yield vcpu.settle()
            count = min(_BATCH, self.most - self.held)
            if count < 1:
                raise VmStopped(Stop.OUT_OF_MEMORY)
            count = yield from self._admitted(vcpu, count)
            pfns = self.host.take(self.owner, count, State.GUEST, reserve=self.host.marks.min)
            if not len(pfns):
                pfns = yield from vcpu.wait(
                    self.host.request(self.owner, count, State.GUEST, asker=self.owner), "host_wait"
                )
            self.held += len(pfns)
            self.ready.put(pfns[::-1])
        return self.ready.pop()

    def try_block(self, vcpu: Any, order: int, *, insists: bool) -> Steps[int]:
        """Return the first of 2**order frames, or NO_FRAME; the host does no more for who `insists`."""
        return (yield from self.allocate(vcpu, order))

    def ensure(self, vcpu: Any, gfns: NDArray[np.int64]) -> Steps[bool]:
        """Find every frame there: they are the host's own."""
        return False
        yield

    def allocate_cached(self, vcpu: Any) -> Steps[int]:
        """Return a frame of the page cache, as `allocate` does."""
        return (yield from self.allocate(vcpu, 0))

    def allocate_table(self, vcpu: Any) -> Steps[int]:
        """Return a frame for a page table; wait while the host is below its min watermark.

        Raises
        ------
        VmStopped
            The limit is reached.
        """
        if vcpu.owed:
            yield vcpu.settle()
        room = self._room(1)
        if not room:
            self.ready.gather()
        if not room and not self.ready:
            raise VmStopped(Stop.OUT_OF_MEMORY)
        if room:
            yield from self._admitted(vcpu, 1)
        pfns = self.host.take(self.owner, int(room), State.TABLE, reserve=self.host.marks.min)
        self.held += len(pfns)
        if not len(pfns) and self.ready:  # as Linux drains its per-cpu lists before it gives up
            pfns = self.ready.drop(1)
            use(self.frames, pfns, int(State.TABLE))
        if not len(pfns):
            pfns = yield from vcpu.wait(self.host.request(self.owner, 1, State.TABLE, asker=self.owner), "host_wait")
            self.held += len(pfns)
        return int(pfns[0])

    def has_block(self, order: int) -> bool:
        """Whether a block of 2**order frames is free above the min watermark; the host notes if none is."""
        return order == 0 or (self._room(1 << order) and self.host.has_block(self.owner, order))

    @property
    def free(self) -> int:
        """Frames that it may still have, and those that stand ready."""
        return min(self.most - self.held, self.host.free) + len(self.ready.held())

    @property
    def short(self) -> bool:
        """Whether its limit is reached, or the host is at its min watermark."""
        return not self.ready and (self.held >= self.most or self.host.free <= self.host.marks.min)

    def give(self, pfns: NDArray[np.int64], order: int) -> None:
        """Take back blocks of 2**order frames, which are the host's at once; a shared frame others may have still."""
        if order == 0 and len(self.host.shared):
            stable = np.array([pfn in self.host.shared for pfn in pfns.tolist()], np.bool_)
            for pfn in pfns[stable].tolist():
                self.left(pfn)
            pfns = pfns[~stable]
        self.held -= len(pfns) << order
        if order == 0:
            self.freed(pfns)
        self.host.give(pfns, order)

    def give_tables(self, pfns: NDArray[np.int64]) -> None:
        """Take back frames that were tables."""
        self.held -= len(pfns)
        self.host.give(pfns, 0)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for frames of the host."""
        return self.host.starving

    def gave(self, count: int) -> None:
        """Note that compiled code has given frames back."""
        self.held -= count
        self.host.returned(count)

    def charge(self, frames: int) -> None:
        """Count frames that come from elsewhere, or with a negative number went back there.

        At the limit, frames that stand ready make room: they go back to the host.

        Raises
        ------
        VmStopped
            The limit is reached, and nothing stands ready.
        """
        short = self.held + frames - self.most
        if short > 0:
            self.ready.gather()
        if short > len(self.ready):
            raise VmStopped(Stop.OUT_OF_MEMORY)
        if short > 0:
            self.give(self.ready.drop(short), 0)
        self.held += frames

    def recount(self) -> None:
        """Count what was allocated before the clock started.

        Raises
        ------
        VmStopped
            It is more than the limit.
        """
        self.held = len(owned(self.zone, self.frames, self.owner))
        self.charge(0)

    def _admitted(self, vcpu: Any, count: int) -> Steps[int]:
        """Return how many of so many frames it may have by its limit, for which the vCPU may have to wait."""
        if self.limit is None:
            return count
        allowed = self.limit.allows(count)
        if not allowed:
            allowed = yield from vcpu.wait(self.host.env.process(self.limit.admit(count)), LIMIT_WAIT)
        return min(allowed, count)

    def _room(self, frames: int) -> bool:
        return self.held + frames <= self.most


def _nobody(pfn: int) -> None:
    """Nobody shares frames."""
    raise AssertionError(f"frame {pfn} is shared, and its owner knows of none")
