"""A vCPU, and daemons, that note what they do when: for a timeline. Nothing else is different, and no figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import simpy

from vmsim.base.clock import Clock
from vmsim.contracts import Exit, Monitor, Resume, Steps
from vmsim.engine.vcpu import Vcpu
from vmsim.machine.vcpu import Reason
from vmsim.record.log import Log
from vmsim.record.timeline import Span

__all__ = ["TracedVcpu", "traced_daemon"]

_OTHER: Final = "other"
_EXITS: Final = {
    int(Reason.GUEST_FAULT): "page fault",
    int(Reason.VIOLATION): "violation",
}


class TracedVcpu(Vcpu):
    """A vCPU that notes its exits, waits, shootdowns and interrupts, and when it is on a core.

    `trace` must be called before it runs.
    """

    def trace(self, log: Log[Span], vm: str) -> None:
        """Note what it does from now on.

        Parameters
        ----------
        log : Log of Span
            Where.
        vm : str
            The VM's name.
        """
        self._log = log
        self._name = f"{vm}/vcpu {self.number}"
        self._since_core = 0

    def enter(self, *, woken: bool = True) -> Steps[None]:
        """As `Vcpu.enter`."""
        yield from super().enter(woken=woken)
        self._since_core = self.env.cycle

    def leave(self) -> None:
        """As `Vcpu.leave`."""
        start, now = self._since_core, self.env.cycle
        if now > start:
            self._log.append(Span(start, now - start, f"pcpu {self._core}", self._name))
        super().leave()

    def until(self, event: simpy.Event, cause: str) -> Steps[Any]:
        """As `Vcpu.until`."""
        start = self.env.cycle
        value = yield from super().until(event, cause)
        self._note(start, self.env.cycle, cause)
        return value

    def shoot_down(self, others: Sequence[Vcpu], work: Callable[[Vcpu], Steps[None]], *, pages: int) -> Steps[None]:
        """As `Vcpu.shoot_down`."""
        start = self.now
        yield from super().shoot_down(others, work, pages=pages)
        self._note(start, self.now, "shootdown", pages)

    def serve(self) -> Steps[None]:
        """As `Vcpu.serve`."""
        start, asked = self.now, bool(self.interrupts) and not self._serving
        yield from super().serve()
        if asked:
            self._note(start, self.now, "interrupt")

    def _handling(self, monitor: Monitor, exit: Exit) -> Steps[Resume]:
        start = self.now
        resume = yield from super()._handling(monitor, exit)
        self._note(start, self.now, f"exit: {_EXITS.get(int(exit.reason), _OTHER)}")
        return resume

    def _note(self, start: int, end: int, what: str, pages: int = 0) -> None:
        if end > start:
            self._log.append(Span(start, end - start, self._name, what, pages))


def traced_daemon(steps: Steps[None], env: Clock, log: Log[Span], name: str) -> Steps[None]:
    """Run a daemon, and note when it works."""
    value, error = None, None
    while True:
        try:
            event = steps.send(value) if error is None else steps.throw(error)
        except StopIteration:
            return
        start, work, error = env.cycle, getattr(event, "work", 0), None
        if work:
            log.append(Span(start, work, name, "runs"))
        try:
            value = yield event
        except Exception as raised:
            error = raised
