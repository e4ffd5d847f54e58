"""Dirty logging by write protection in any paging mode: which guest frames were written to since the log was last read.

As KVM without nested tables (arch/x86/kvm/mmu/mmu.c): `kvm_mmu_slot_remove_write_access` takes the right to write from
every entry of the VM's memory, by the reverse map; the fault of the first write to a page notes it and gives the right
back (`make_spte`, mark_page_dirty_in_slot); a reading takes it again from the pages that it finds. What the monitor
itself writes to guest memory is noted too: stores that it emulates, flags that its walks set.

It differs in one thing: KVM also makes writable, and notes, a page of which a read is faulted in that the guest may
write to. Here only what is written to is in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Flush, Steps, Vcpu
from vmsim.monitor.features.base import Monitored
from vmsim.monitor.features.log_reader import LogReader
from vmsim.scenario.dirty_log import DirtyLogSpec

__all__ = ["ProtectLog", "Protected"]


class Protected(Monitored, Protocol):
    """A monitor that protects guest frames, and knows how to treat faults while they are logged."""

    def protect_logged(self, first: int, count: int) -> Flush:
        """Have the next write to each of the frames be noticed."""
        ...

    def note_unprotected(self) -> None:
        """Note in the log the frames that may be written to without anybody noticing."""

    def log_writes(self, *, on: bool) -> int:
        """Begin or end to let only pages of the log be written to; return the large pages that come back whole."""
        ...


class ProtectLog(LogReader):
    """The log of what a VM writes to.

    Parameters
    ----------
    monitor : Protected
        The monitor.
    spec, flush, dirty
        As of `LogReader`; the monitor notes pages in `dirty`.
    """

    def __init__(
        self, monitor: Protected, spec: DirtyLogSpec, flush: Callable[[], None], dirty: NDArray[np.bool_]
    ) -> None:
        compiled = monitor.compiled
        super().__init__(monitor, spec, flush, dirty)
        self.monitor = monitor
        monitor.compiled = compiled  # which notes what is written to as well

    def begin(self, vcpu: Vcpu) -> Steps[None]:
        """Start logging: nothing may be written to unnoticed."""
        self.logging = True
        self._started = vcpu.now
        self.monitor.log_writes(on=True)
        self.dirty[:] = False
        self.monitor.protect_logged(0, len(self.dirty))
        self._begin_round()
        self._flush()
        return
        yield

    def end(self) -> None:
        """Stop logging: the next write to a page lets it be written to, for good."""
        self.logging = False
        self.collapses += self.monitor.log_writes(on=False)
        self._flush()

    def _clean(self) -> int:
        gfns = np.flatnonzero(self.dirty)
        for run in np.split(gfns, np.flatnonzero(np.diff(gfns) != 1) + 1):
            if len(run):
                self.monitor.protect_logged(int(run[0]), len(run))
        return len(gfns)

    def _begin_round(self) -> None:
        self.monitor.note_unprotected()
