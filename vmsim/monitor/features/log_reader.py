"""What every dirty log is: frames that were written to, which the host reads and makes clean again now and then."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Ledger
from vmsim.contracts import LiveVm, PageHints, Steps, Vcpu
from vmsim.monitor.features.base import Feature, Monitored
from vmsim.record.log import Log
from vmsim.record.outcome import DirtyRound, round_log
from vmsim.scenario.dirty_log import DirtyLogSpec

__all__ = ["PROTECTED", "READ", "LogReader"]

PROTECTED, READ = "WRITE_PROTECT", "DIRTY_LOG"  # exits


class LogReader(Feature, ABC):
    """A log of what a VM writes to, and the process of the host's that reads it.

    Parameters
    ----------
    tdp : Monitored
        The monitor.
    spec : DirtyLogSpec
        What is logged how.
    flush : callable
        Makes the processors forget the translations that let the VM write.
    dirty : bool[pages]
        By gfn: written to since the log was last read.
    reasons : str
        Of exits besides READ and PROTECTED.

    Attributes
    ----------
    ever : bool[pages]
        By gfn: written to since logging began.
    hints : PageHints or None
        What the guest says is free, so that whoever copies its memory need not copy it; None: it says nothing.
    hinted : int
        Pages that were to be copied, all memory at first and then what each reading has found, and that the guest said
        were free before the next reading. One that it uses again is written to, and found by that.
    """

    hints: PageHints | None = None

    def __init__(
        self,
        tdp: Monitored,
        spec: DirtyLogSpec,
        flush: Callable[[], None],
        dirty: NDArray[np.bool_],
        *reasons: str,
    ) -> None:
        super().__init__(tdp, PROTECTED, *reasons, READ)
        self.spec = spec
        self.dirty = dirty
        self.ever = np.zeros_like(dirty)
        self._rounds = round_log()
        self._pages = self._host_cycles = 0  # of all readings
        self.splits = self.collapses = self.hinted = 0
        self._to_copy = np.ones_like(dirty)
        self.logging = False
        self._flush = flush
        self._started = 0
        tdp.compiled = False

    @property
    def rounds(self) -> Log[DirtyRound]:
        """Readings of the log."""
        return self._rounds

    def run(self, vm: LiveVm) -> Steps[None]:
        """Read the log whenever it is time, or as soon as the last reading is done, until logging ends."""
        clock, due = vm.env, self._started + self.spec.every
        self.hints = vm.balloon.device.hints if vm.balloon else None
        if self.hints:
            self.hints.restart()
        while True:
            yield clock.background(max(0, due - clock.cycle))
            if self.over:
                return
            start = clock.cycle
            busy = self.read(vm.vcpus, start, late=start - due)
            due = start + self.spec.every
            if self.spec.stop and start - self._started >= self.spec.stop:
                self.end()
                if self.hints:
                    self.hints.done()
                self._kick(vm.vcpus, READ)
                return
            if due < start + busy:
                yield clock.background(busy)

    def read(self, vcpus: Sequence[Vcpu], now: int, *, late: int = 0) -> int:
        """Read the log: note what is dirty, and make it clean. The host does it on a core of its own.

        A vCPU that runs pays an exit, for its processor has to forget the translations that let it write, and the host
        waits until it has left the guest.

        Parameters
        ----------
        now : int
            The cycle.
        late : int, optional
            Cycles since it was due.

        Returns
        -------
        int
            Cycles that it takes.
        """
        for vcpu in vcpus:
            vcpu.impose(self._drain(vcpu.registers))
        host = self._look()
        pages = self._clean()
        host += pages * self.costs.log_page
        wait = self.tdp.lock.hold(now, host)
        self.ever |= self.dirty
        if self.hints:
            self.hinted += int(np.count_nonzero(self.hints.restart() & self._to_copy))
            self._to_copy[:] = self.dirty
        self.dirty[:] = False
        self._begin_round()
        self._flush()
        wait += self._kick(vcpus, READ)
        self._rounds.append(DirtyRound(now, pages, host, late))
        self._pages += pages
        self._host_cycles += host
        return host + wait

    def finish(self, vcpu: Vcpu) -> None:
        """Read the log a last time: the VM's workload is over."""
        super().finish(vcpu)
        if self.logging:
            self.read([vcpu], vcpu.now)

    @abstractmethod
    def end(self) -> None:
        """Stop logging."""

    def register(self, ledger: Ledger) -> None:
        """Say what it counts besides the exits."""
        ledger.counters("dirty_log", self._figures)

    def _figures(self) -> dict[str, int]:
        splits, collapses = self.pieces()
        found = {"readings": self._rounds.noted, "pages": self._pages, "host_cycles": self._host_cycles}
        return found | {"splits": splits, "collapses": collapses} | ({"hinted": self.hinted} if self.hints else {})

    def pieces(self) -> tuple[int, int]:
        """Return how many large pages were split, and how many came back whole."""
        return self.splits, self.collapses

    @abstractmethod
    def _clean(self) -> int:
        """Have the next write to each dirty page be noticed; return how many there are."""

    def _look(self) -> int:
        """Look for pages that nobody has noted; return the host's cycles."""
        return 0

    def _begin_round(self) -> None:
        """Note what is taken for written to until the next reading, for nothing tells of it."""

    def _drain(self, registers: NDArray[Any]) -> int:
        """Take in what a vCPU's processor has noted; return the cycles of an exit that does."""
        return 0
