"""The swap device of a guest: the host's swap (`vmsim.host.swap`) over the frames of a guest's kernel.

Its pages have no second copy: one that came back gives its slot up. Who swaps out tells the device once for all pages
that it takes together, who needs a page back for that one; others are read ahead to frames that the host has backed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import simpy

from vmsim.base.clock import Clock
from vmsim.base.ledger import Ledger
from vmsim.contracts import Steps, Vcpu, Words
from vmsim.frames.buddy import use
from vmsim.frames.records import State
from vmsim.guest.frames import GuestFrames
from vmsim.guest.process import Process
from vmsim.guest.program_pages import ProgramPages
from vmsim.guest.reclaim import GUEST_SWAP_WAIT, RECLAIM
from vmsim.guest.spaces import Space
from vmsim.host.identity import PageIdentity
from vmsim.host.swap.device import BlockDevice
from vmsim.host.swap.native_pages import SwappedSpaces, Taken
from vmsim.host.swap.swap import Swap
from vmsim.machine.formats import PRESENT
from vmsim.scenario.cpu import Cost
from vmsim.scenario.vm import Marks

__all__ = ["GuestSwap", "GuestSwapped"]

_NONE = np.empty(0, np.int64)


class _KernelFrames:
    """A guest's frames, as `Swap` knows a host's.

    Attributes
    ----------
    held : int
        Those that are the swap's.
    """

    def __init__(self, env: Clock, frames: GuestFrames, marks: Marks, backing: Words) -> None:
        self.env = env
        self.allocator = frames
        self.frames = frames.frames
        self.marks = marks
        self.backing = backing
        self.held = 0
        self.limits: dict[int, Any] = {}

    def give(self, gfns: Words) -> None:
        """Free frames."""
        self.held -= len(gfns)
        use(self.frames, gfns, int(State.GUEST))
        self.allocator.give_tables(gfns)

    def hand_over(self, gfns: Words, owner: int, state: State) -> None:
        """Note another use of frames: the swap's, or a program's."""
        self.held += len(gfns) if state == State.HOST else -len(gfns)
        use(self.frames, gfns, int(state))

    def take(self, owner: int, count: int, state: State, *, reserve: int) -> Words:
        """Return up to so many frames that the host has backed, int64[n], above those that are reserved."""
        count = min(count, int(self.allocator.zone["free"][0]) - reserve)
        if count < 1:
            return _NONE
        gfns = self.allocator.reserve(count, 0)
        there = self.backing[gfns] & PRESENT != 0
        if not there.all():
            self.allocator.release(gfns[~there], 0)
            gfns = gfns[there]
        self.held += len(gfns)
        return gfns


class GuestSwap(Swap):
    """The swap of one kernel.

    Parameters
    ----------
    frames : GuestFrames
        The kernel's.
    start, notify, deliver : callable
        As of `GuestDisk`.
    others
        As of `Swap`.

    Attributes
    ----------
    busy : int
        Requests under way.
    """

    cause = GUEST_SWAP_WAIT
    keeps = False
    who = "its kernel"

    def __init__(
        self,
        env: Clock,
        frames: GuestFrames,
        marks: Marks,
        slots: int,
        device: BlockDevice,
        page_cluster: int,
        costs: Cost,
        *,
        backing: Words,
        start: Callable[[Words, int], simpy.Event],
        notify: Callable[[Any], None],
        deliver: Callable[[Any], None],
    ) -> None:
        super().__init__(_KernelFrames(env, frames, marks, backing), slots, device, page_cluster, costs)
        self.kernel_frames = frames
        self.start = start
        self.notify = notify
        self.deliver = deliver
        self.busy = 0
        self._vcpu: Any = None  # who has told the device last

    def tell(self, vcpu: Any) -> None:
        """Have a vCPU tell the device of requests."""
        self.notify(vcpu)
        self._vcpu = vcpu

    def rest(self) -> Steps[None]:
        """Wait until nothing is under way."""
        while self.busy:
            yield self.progress

    def frames_for(self, vcpu: Any, owner: int, count: int) -> Steps[Words]:
        """Return a frame for a page that is read, which the host has backed; the device is told.

        And others that are at hand, `count` in all.
        """
        gfn = yield from self.kernel_frames.allocate(vcpu, 0)
        self.host.hand_over(np.array([gfn]), owner, State.HOST)
        self.tell(vcpu)
        yield vcpu.settle()
        yield from self.kernel_frames.ensure(vcpu, np.array([gfn]))
        others = self.host.take(owner, count - 1, State.HOST, reserve=self.host.marks.min)
        return np.array([gfn, *others.tolist()])

    def _at(self, delay: int, pfns: Words, call: Callable[[], None]) -> None:
        vcpu = self._vcpu
        self.busy += 1

        def over(_: simpy.Event) -> None:
            self.busy -= 1
            vcpu.interrupt(self._take_interrupt)
            call()

        done = self.start(pfns, delay)
        assert done.callbacks is not None
        done.callbacks.append(over)

    def _take_interrupt(self, vcpu: Any) -> Steps[None]:
        self.deliver(vcpu)
        return
        yield


class _Memory:
    """A guest's programs' pages, as `SwappedSpaces` knows those of a program on the host itself."""

    def __init__(self, pages: ProgramPages, identity: PageIdentity) -> None:
        self.owner = pages.owner
        self.records = pages.records
        self.words = pages.memory
        self.places_of = pages.places_of
        self.identity = identity
        self.frames = self
        self.returned = 0

    def charge(self, frames: int) -> None:
        """Count nothing: the frames are the kernel's own."""

    def cached(self, numbers: Words, gfns: Words) -> None:
        """Learn nothing: the kernel asks for what is away."""

    def uncached(self, numbers: Words) -> None:
        """Learn nothing."""


class GuestSwapped:
    """Which pages of a guest's programs are on its swap device: `guest.spaces.Swapped`, and `SwappedOut`.

    Parameters
    ----------
    swap : GuestSwap
        The device.
    pages : ProgramPages
        The pages.
    kernel : GuestKernel
        Whose.
    identity : PageIdentity
        What pages hold.

    Attributes
    ----------
    refaulted : callable
        Called when a page has come back from the device.
    """

    def __init__(
        self,
        swap: GuestSwap,
        pages: ProgramPages,
        kernel: Any,
        identity: PageIdentity,
    ) -> None:
        self.swap = swap
        self.refaulted: Callable[[], None] = lambda: None
        self._kernel = kernel
        memory = _Memory(pages, identity)
        self.slots = SwappedSpaces(swap, memory, self.spaces, kernel.hold_back)

    def spaces(self) -> list[Space]:
        """Return the address spaces, each once."""
        processes: Iterable[Process] = self._kernel.processes.values()
        return [*dict.fromkeys(each.space for each in processes)]

    # ---- SwappedOut

    @property
    def room(self) -> int:
        """Free slots."""
        return self.swap.area.free

    @property
    def writing(self) -> int:
        """Frames that are free when the device has written them."""
        return self.swap.writing

    @property
    def progress(self) -> simpy.Event:
        """Triggered the next time that the device is done with a frame."""
        progress: simpy.Event = self.swap.progress
        return progress

    def shrink_cache(self, count: int) -> int:
        """Free frames of pages that were read ahead, and nobody wants."""
        return self.swap.shrink_cache(count)

    def admit(self, gfns: Words) -> tuple[Words, Taken]:
        """Find slots for pages, and say where they are."""
        taken = self.slots.take(gfns)
        return taken.pages, taken

    def write(self, vcpu: Vcpu, taken: Taken) -> None:
        """Write pages that nothing maps any more."""
        self.swap.tell(vcpu)
        self.slots.write(taken)
        vcpu.owe(RECLAIM, self.swap.collect())

    # ---- Swapped

    def bring(self, vcpu: Vcpu, space: Any, number: int, *, write: bool) -> Steps[tuple[int, bool]]:
        """Bring a page back; who takes it away just now is waited for."""
        if space.entries.writing:
            with (yield from space.entries.acquire(vcpu, write=True)):
                pass
        before = self.swap.counts[self._kernel.frames.owner]["major"]
        found = yield from self.slots.bring(vcpu, space, number, write=write)
        if self.swap.counts[self._kernel.frames.owner]["major"] > before:
            self.refaulted()
        return found

    def drop(self, space: Any, first: int, limit: int) -> None:
        """Forget the pages of a range that are away."""
        self.slots.drop(space, first, limit)

    def move(self, space: Any, first: int, limit: int, to: int) -> None:
        """Move them."""
        self.slots.move(space, first, limit, to)

    def copy(self, space: Any, child: Any, left_out: Iterable[tuple[int, int]]) -> None:
        """Have a child's space have them too."""
        self.slots.copy(space, child, left_out)

    @property
    def held(self) -> int:
        """Frames of the kernel in the swap cache."""
        held: int = self.swap.host.held
        return held

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        owner = self._kernel.frames.owner
        ledger.counters("guest_swap", lambda: self.swap.figures(owner))
        ledger.histogram("guest_swap_latency", self.swap.latency[owner])
        ledger.counters("guest_swap_device", self.swap.host_figures)
