"""A shadow while a dirty log is kept of the VM: what its guest's kernel and the monitor itself write to is noted."""

from __future__ import annotations

from collections.abc import Sequence

from vmsim.base.ledger import Ledger
from vmsim.contracts import Steps, Vcpu, Worker
from vmsim.monitor.features.protect_log import ProtectLog
from vmsim.monitor.shadow.account import Account
from vmsim.monitor.shadow.records import ShadowTables
from vmsim.monitor.shadow.second import ShadowEntries
from vmsim.record.log import Log
from vmsim.record.outcome import DirtyRound
from vmsim.scenario.dirty_log import DirtyLogSpec

__all__ = ["LoggedShadow"]


class LoggedShadow(ShadowEntries, Account):
    """The part of a shadow monitor that a dirty log is of, where there is one.

    Attributes
    ----------
    log : ProtectLog or None
        The log.
    """

    log: ProtectLog | None
    tables: ShadowTables

    def make_log(self, spec: DirtyLogSpec) -> ProtectLog:
        """Return the log of what the VM writes to."""
        return ProtectLog(self, spec, self.spaces.flush_all, self.tables.dirty)

    def log_writes(self, *, on: bool) -> int:
        """Begin or end to let only pages of the log be written to; return the large pages that come back whole."""
        self.state["logging"] = on
        return 0 if on else self.recover()

    def is_guarded(self, gfn: int) -> bool:
        """Return whether a frame is shadowed as a table that is in step."""
        page = int(self.gfns["tables"][gfn]) - 1
        while page >= 0:
            if not self.pages["unsync"][page]:
                return True
            page = int(self.pages["next"][page]) - 1
        return False

    def exited(self, vcpu: Vcpu) -> None:
        """Forget what a VM exit makes the processor forget."""
        vcpu.spaces.exited()

    @property
    def workers(self) -> Sequence[Worker]:
        """The log, which is read now and then."""
        return (self.log,) if self.log else ()

    def begin(self, vcpu: Vcpu) -> Steps[None]:
        """Begin to log."""
        if self.log:
            yield from self.log.begin(vcpu)

    def finish(self, vcpu: Vcpu) -> None:
        """Read the log a last time."""
        if self.log:
            self.log.finish(vcpu)

    @property
    def rounds(self) -> Log[DirtyRound]:
        """Readings of the log."""
        return self.log.rounds if self.log else super().rounds

    def register(self, ledger: Ledger) -> None:
        """Say what it counts, and what the log does."""
        super().register(ledger)
        if self.log:
            self.log.register(ledger)
