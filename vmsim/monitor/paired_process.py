"""A process of a paired kernel that is no VM: it runs on its KPT, and pays for the EPT halves that nobody uses."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.machine.buddy import State
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT, NestedFormat
from vmsim.machine.memory import clear_frame
from vmsim.machine.stack import Stack
from vmsim.monitor.paired_layout import NO_EPT, PairedHost, price
from vmsim.monitor.paired_space import to_ept
from vmsim.scenario.paired import Layout

__all__ = ["PairedFrames", "PairedMmu"]

Process = Generator[simpy.Event, Any, None]
Words = NDArray[np.int64]


class Frames(Protocol):
    """Where the pages of a bare program come from."""

    zone: NDArray[Any]
    frames: NDArray[Any]
    owner: int

    @property
    def ready(self) -> Stack:
        """Frames taken from the allocator and not yet handed out."""
        ...

    def allocate(self, vcpu: Any, order: int) -> Generator[simpy.Event, Any, int]:
        """Return the first of 2**order frames."""
        ...

    def has_block(self, order: int) -> bool:
        """Whether 2**order frames could be had."""
        ...

    def give(self, pfns: Words, order: int) -> None:
        """Take back blocks."""

    def charge(self, frames: int) -> None:
        """Count frames that come from elsewhere, or went back there, towards the limit."""


class Mmu(Protocol):
    """How a kernel reaches the processor."""

    @property
    def memory_root(self) -> tuple[int, int]:
        """Nested tables, which there are none of."""
        ...

    def load_root(self, vcpu: Any, root: int, space: int, *, keep: bool) -> Process:
        """MOV to CR3."""
        ...

    def invalidate(self, vcpu: Any, first: int, last: int, *, order: int = 0) -> Process:
        """INVLPG."""
        ...

    def flush(self, vcpu: Any) -> Process:
        """Forget the current space."""
        ...

    def release(self, vcpu: Any, root: int, space: int) -> Process:
        """Note that a root is freed."""
        ...


class PairedFrames:
    """The host's frames for a process whose tables are paired: a table is given by its KPT half."""

    def __init__(self, inner: Frames, shared: PairedHost, layout: Layout) -> None:
        self.inner = inner
        self.shared = shared
        self.layout: Layout = layout
        self.owner = inner.owner
        self.zone = inner.zone
        self.frames = inner.frames

    @property
    def ready(self) -> Stack:
        """Frames taken from the allocator and not yet handed out."""
        return self.inner.ready

    def allocate(self, vcpu: Any, order: int) -> Generator[simpy.Event, Any, int]:
        """Return the first of 2**order frames."""
        return (yield from self.inner.allocate(vcpu, order))

    def allocate_table(self, vcpu: Any) -> Generator[simpy.Event, Any, int]:
        """Return the frame of the KPT half of a new table; wait while the host has no memory for both."""
        if vcpu.owed:
            yield vcpu.settle()
        self.inner.charge(1)  # its other half is the price of pairing, and the host's
        shared, before = self.shared, self.shared.spent(self.owner).copy()
        work = shared.spent(self.owner)
        lower, _ = yield from shared.wait(vcpu.wait, self.owner, self.layout, guest=False, work=work)
        done = work - before
        done.subtract(("table", "zero"))  # one of each is the kernel's to count, as of any table
        vcpu.owe("guest_fault", price(done, shared.costs))
        return lower

    def has_block(self, order: int) -> bool:
        """Whether 2**order frames could be had."""
        return self.inner.has_block(order)

    def give(self, pfns: Words, order: int) -> None:
        """Take back blocks of 2**order frames."""
        self.inner.give(pfns, order)

    def give_tables(self, pfns: Words) -> None:
        """Take back tables, both halves of each."""
        self.inner.charge(-len(pfns))
        for lower in pfns.tolist():
            self.shared.give(self.layout, self.shared.pair_of(self.layout, lower))


class PairedMmu:
    """What a kernel does to KPTEs, done to their EPTEs as well.

    Parameters
    ----------
    inner : Mmu
        The processor's own.
    shared, layout
        As of `PairedFrames`.
    form : NestedFormat
        Of the EPT.
    owner : int
        Number of the process.
    """

    traps = True  # every load and store of an entry comes through here
    loads_trap = True
    known = False

    def __init__(self, inner: Mmu, shared: PairedHost, layout: Layout, form: NestedFormat, *, owner: int) -> None:
        self.inner = inner
        self.shared = shared
        self.memory = shared.memory
        self.frames = shared.host.frames
        self.layout: Layout = layout
        self.form = form
        self.work = shared.spent(owner)
        self._paired = layout != "separate"

    @property
    def memory_root(self) -> tuple[int, int]:
        """Nothing lies between the process's tables and memory."""
        return self.inner.memory_root

    def read(self, vcpu: Any, places: Words) -> Generator[simpy.Event, Any, Words]:
        """Load KPTEs. Their flags are all there is: nobody walks the EPT of a process that is no VM."""
        values: Words = self.memory[places >> 3]
        return values
        yield

    def write(self, vcpu: Any, places: Words, values: Words) -> Process:
        """Store KPTEs, and the EPTEs that say the same."""
        for place, value in zip(places.tolist(), values.tolist(), strict=True):  # in order: a link, then what is below
            self.memory[place >> 3] = value
        if self._paired and len(places):
            self.memory[self._twins(vcpu, places) >> 3] = self._entries(values)
            self.work["store"] += len(places)
            vcpu.owe("guest_fault", len(places) * self.shared.costs["store"])
        return
        yield

    def clear(self, vcpu: Any, gpa: int, order: int, *, table: bool) -> Process:
        """Zero both halves of a frame that becomes a table."""
        if table:
            for frame in self.shared.pair_of(self.layout, gpa >> PAGE_SHIFT):
                if frame != NO_EPT:
                    clear_frame(self.memory, frame << PAGE_SHIFT)
        return
        yield

    def load_root(self, vcpu: Any, root: int, space: int, *, keep: bool) -> Process:
        """Point CR3 to a KPT."""
        yield from self.inner.load_root(vcpu, root, space, keep=keep)

    def invalidate(self, vcpu: Any, first: int, last: int, *, order: int = 0) -> Process:
        """Forget the pages of a range."""
        yield from self.inner.invalidate(vcpu, first, last, order=order)

    def flush(self, vcpu: Any) -> Process:
        """Forget the current space."""
        yield from self.inner.flush(vcpu)

    def release(self, vcpu: Any, root: int, space: int) -> Process:
        """Keep nothing under the number."""
        yield from self.inner.release(vcpu, root, space)

    def _twins(self, vcpu: Any, places: Words) -> Words:
        before = self.work["dereference"]
        twins = self.shared.twins(self.layout, places, self.work)
        vcpu.owe("guest_fault", (self.work["dereference"] - before) * self.shared.costs["dereference"])
        return twins

    def _entries(self, values: Words) -> Words:
        """Return the EPTEs that say what KPTEs do; those of tables point to the other half."""
        below = (values & FRAME) >> PAGE_SHIFT
        table = (values & PRESENT != 0) & (values & LARGE == 0)
        table &= self.frames["state"][np.where(table, below, 0)] == State.TABLE
        entries = to_ept(values, self.form, table=False)
        for index in np.flatnonzero(table).tolist():
            half = self.shared.pair_of(self.layout, int(below[index]))[1]
            entries[index] = half << PAGE_SHIFT | self.form.table
        return entries
