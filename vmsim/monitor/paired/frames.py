"""Frames of the host's for a process whose tables are paired."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Words
from vmsim.frames.stack import Stack
from vmsim.monitor.paired.layout import price
from vmsim.monitor.paired.process import Halves, LimitedFrames

__all__ = ["PairedFrames"]


class PairedFrames:
    """The host's frames for a process whose tables are paired: a table is given by its KPT half."""

    batch = kept = 0

    def __init__(self, inner: LimitedFrames, tables: Halves) -> None:
        self.inner = inner
        self.tables = tables
        self.shared = tables.shared
        self.owner = inner.owner
        self.zone = inner.zone
        self.frames = inner.frames

    @property
    def ready(self) -> Stack:
        """Frames taken from the allocator and not yet handed out."""
        return self.inner.ready

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for frames of the host."""
        return self.inner.wanted

    def gave(self, count: int) -> None:
        """Note that compiled code has given frames back."""
        self.inner.gave(count)

    def allocate(self, vcpu: Any, order: int) -> Steps[int]:
        """Return the first of 2**order frames."""
        return (yield from self.inner.allocate(vcpu, order))

    def try_block(self, vcpu: Any, order: int, *, insists: bool) -> Steps[int]:
        """Return the first of 2**order frames, or NO_FRAME."""
        return (yield from self.inner.allocate(vcpu, order))

    def ensure(self, vcpu: Any, gfns: NDArray[np.int64]) -> Steps[bool]:
        """Find every frame there: they are the host's own."""
        return (yield from self.inner.ensure(vcpu, gfns))

    def allocate_cached(self, vcpu: Any) -> Steps[int]:
        """Return a frame of the page cache, as `allocate` does."""
        return (yield from self.allocate(vcpu, 0))

    def allocate_table(self, vcpu: Any) -> Steps[int]:
        """Return the frame of the KPT half of a new table; wait while the host has no memory for both."""
        if vcpu.owed:
            yield vcpu.settle()
        self.inner.charge(1)  # its other half is the price of pairing, and the host's
        shared, tables, work = self.shared, self.tables, self.tables.work
        before = work.copy()
        pair = yield from shared.wait(vcpu.wait, self.owner, tables.layout, guest=tables.guest, work=work)
        lower = pair[0]
        if tables.layout == "separate" and tables.guest:
            tables.second[lower] = pair[1]
        done = work - before
        done.subtract(("table", "zero"))  # one of each is the kernel's to count, as of any table
        vcpu.owe("guest_fault", price(done, shared.costs))
        return lower

    def recount(self) -> None:
        """Count what was allocated before the clock started."""
        self.inner.recount()

    def has_block(self, order: int) -> bool:
        """Whether 2**order frames could be had."""
        return self.inner.has_block(order)

    @property
    def free(self) -> int:
        """Frames that nobody uses."""
        return self.inner.free

    @property
    def short(self) -> bool:
        """Whether nobody should take a frame who could do without."""
        return self.inner.short

    def give(self, pfns: Words, order: int) -> None:
        """Take back blocks of 2**order frames."""
        self.inner.give(pfns, order)

    def give_tables(self, pfns: Words) -> None:
        """Take back tables, both halves of each."""
        self.inner.charge(-len(pfns))
        for lower in pfns.tolist():
            self.shared.give(self.tables.layout, self.tables.of(lower))
            self.tables.second.pop(lower, None)
