"""Guest-physical memory as a guest's kernel sees it: its own buddy allocator over its own frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Backer, MakesRoom, Steps, Stop, Vcpu, VmStopped, ensure
from vmsim.frames.buddy import allocate, allocate_many, free_many, make_zone, use
from vmsim.frames.records import NO_FRAME, State
from vmsim.frames.stack import Stack
from vmsim.frames.uptime import break_up, scatter_tables
from vmsim.guest.demand import READY_BATCH, give_back

__all__ = ["GuestFrames"]


class SharesFrames(Protocol):
    """Of a kernel whose host takes memory from its allocator (`vmsim.guest.bilateral`)."""

    def bring(self, vcpu: Vcpu, gfn: int, order: int) -> Steps[None]:
        """Ask for the memory of 2**order frames, just allocated, where the host has taken it."""
        ...


class GuestFrames:
    """The frames of a VM and the allocator of its kernel.

    Parameters
    ----------
    size : int
        How many.
    backer : Backer
        Told of those that are allocated.
    owner : int
        The VM's number.
    host : Backer, optional
        Who backs those that software is about to touch, where `backer` leaves that to its first access.

    Attributes
    ----------
    reclaim : MakesRoom or None
        Who frees frames before they are taken; None: nobody does.
    offline : int
        Frames that the guest does not have now (memory that is not plugged, or that the host has allocated).
    shared : SharesFrames or None
        Who asks the host for the memory of frames before they are used; None: the host takes none by itself.
    floor : int
        Free frames that are left to those who must have some (the min watermark of a kernel that reclaims).
    kept : int
        Frames that the kernel has kept for itself since before the start.
    clutter : bool[frames]
        Those of them that hold what can be moved: what they hold is not simulated.
    """

    batch = READY_BATCH
    wanted = False  # they are the kernel's own

    def __init__(self, size: int, backer: Backer, *, owner: int, host: Backer | None = None) -> None:
        self.zone, self.frames = make_zone(size)
        self.backer = backer
        self.host = host or backer
        self.owner = owner
        self.ready = Stack()  # taken from the allocator, not yet handed out
        self.reclaim: MakesRoom | None = None
        self.floor = self.offline = self.kept = 0
        self.clutter = np.zeros(size, np.bool_)
        self.shared: SharesFrames | None = None
        self.spare: Callable[[Vcpu], Steps[bool]] | None = None  # frees some when none is left; whether it could

    def age(self, *, span: int, share: float, seed: int, limit: int = 0) -> None:
        """Have free memory lie as after some uptime (`vmsim.frames.uptime`), before any of it is taken.

        Parameters
        ----------
        span : int
            Frames over which those for page tables are scattered.
        share : float
            Of what is free otherwise, in single frames.
        seed : int
        limit : int
            Frames from here on stay as they are; 0: none.
        """
        source = np.random.PCG64(seed)
        if span:
            self.kept += len(scatter_tables(self.zone, self.frames, self.owner, span, source, limit))
        if share:
            pages = break_up(self.zone, self.frames, self.owner, share, source, limit)
            self.clutter[pages] = True
            self.kept += len(pages)

    def allocate_table(self, vcpu: Vcpu) -> Steps[int]:
        """Return a frame for a page table, from the pageblocks that tables are kept in.

        Raises
        ------
        VmStopped
            No frame is left.
        """
        while (gfn := self._table()) == NO_FRAME:
            yield from self._find_some(vcpu)
        yield from self.bring(vcpu, gfn, 0)
        return gfn

    def allocate(self, vcpu: Vcpu, order: int) -> Steps[int]:
        """Return the first of 2**order frames, cleared: the first write to a frame makes the host back it.

        Raises
        ------
        VmStopped
            No free block of that order is left.
        """
        if self.reclaim:
            yield from self.reclaim.make_room(vcpu, 1 << order)
        while (gfn := self._one() if order == 0 else self._block(order)) == NO_FRAME:
            yield from self._find_some(vcpu)
        yield from self.bring(vcpu, gfn, order)
        return gfn

    def try_block(self, vcpu: Vcpu, order: int, *, insists: bool) -> Steps[int]:
        """Return the first of 2**order frames as `allocate` does, or NO_FRAME: nobody ends for want of it.

        Who `insists` has pages reclaimed for it where memory is short.
        """
        if insists and self.reclaim:
            yield from self.reclaim.try_once(vcpu, 1 << order)
        found = self.reserve(1, order)
        if not len(found):
            return NO_FRAME
        gfn = int(found[0])
        use(self.frames, np.arange(gfn, gfn + (1 << order)), int(State.GUEST))
        yield from self.bring(vcpu, gfn, order)
        return gfn

    def allocate_cached(self, vcpu: Vcpu) -> Steps[int]:
        """Return a frame of the page cache: what it holds is there already, and the kernel does not touch it.

        The host backs it when a program does.

        Raises
        ------
        VmStopped
            No frame is left.
        """
        if self.reclaim:
            yield from self.reclaim.make_room(vcpu, 1)
        while (gfn := self._one()) == NO_FRAME:
            yield from self._find_some(vcpu)
        if self.shared:
            yield from self.shared.bring(vcpu, gfn, 0)
        return gfn

    def bring(self, vcpu: Vcpu, gfn: int, order: int) -> Steps[None]:
        """Write to 2**order frames that were taken from the allocator; the host backs them by then."""
        if self.shared:
            yield from self.shared.bring(vcpu, gfn, order)
        yield from self.backer.touch(vcpu, gfn, order)

    def ensure(self, vcpu: Vcpu, gfns: NDArray[np.int64]) -> Steps[bool]:
        """Have the host back frames that software is about to touch; return whether any was not."""
        return (yield from ensure(vcpu, self.host, gfns))

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
        give_back(self.zone, self.frames, self.ready.words, gfns)

    def give_tables(self, gfns: NDArray[np.int64]) -> None:
        """Take back frames that were tables."""
        free_many(self.zone, self.frames, 0, gfns)

    def gave(self, count: int) -> None:
        """Note nothing: the allocator has counted."""

    def recount(self) -> None:
        """Count nothing: the allocator has counted."""

    @property
    def free(self) -> int:
        """Frames that nobody uses."""
        return int(self.zone["free"][0]) + len(self.ready)

    @property
    def short(self) -> bool:
        """Whether none is left but for those who must have one."""
        return self.free == 0 or int(self.zone["free"][0]) < self.floor

    def drain(self) -> None:
        """Have the allocator have the frames that stand ready (drain_all_pages)."""
        self.give_tables(self.ready.drop(len(self.ready)))

    def reserve(self, most: int, order: int) -> NDArray[np.int64]:
        """Take up to `most` blocks of 2**order frames for the kernel's own use, int64[n]; nobody touches them.

        Nobody who has pages is asked for some (__GFP_NORETRY, __GFP_NOMEMALLOC), and no page is cleared.
        """
        if self.floor:
            most = min(most, max(0, int(self.zone["free"][0]) - self.floor >> order))
        pages = np.empty(most, np.int64)
        if order:
            return pages[: allocate_many(self.zone, self.frames, order, int(State.HOST), self.owner, pages)]
        got = 0
        while got < most and (page := self._one()) != NO_FRAME:
            pages[got] = page
            got += 1
        use(self.frames, pages[:got], int(State.HOST))
        return pages[:got]

    def release(self, pages: NDArray[np.int64], order: int) -> None:
        """Take back what was reserved."""
        if order == 0:
            use(self.frames, pages, int(State.GUEST))
        self.give(pages, order)

    def _find_some(self, vcpu: Vcpu) -> Steps[None]:
        """Have some frames freed where there is none left.

        Raises
        ------
        VmStopped
            There are none.
        """
        if not (self.reclaim and (yield from self.reclaim.last_resort(vcpu))):
            yield from self.give_up(vcpu)

    def give_up(self, vcpu: Vcpu) -> Steps[None]:
        """Have the balloon give some, when nothing else has.

        Raises
        ------
        VmStopped
            It has none.
        """
        if self.spare is None or not (yield from self.spare(vcpu)):
            raise VmStopped(Stop.OUT_OF_MEMORY)

    def _table(self) -> int:
        gfn = int(allocate(self.zone, self.frames, 0, int(State.TABLE), self.owner))
        if gfn == NO_FRAME and self.ready:  # as Linux drains its per-cpu lists before it gives up
            oldest = self.ready.drop(1)
            use(self.frames, oldest, int(State.TABLE))
            gfn = int(oldest[0])
        return gfn

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
