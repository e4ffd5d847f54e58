"""Runs of a vCPU until it needs software that can wait; what cannot, compiled code does on the way where it may."""

from __future__ import annotations

from typing import NamedTuple

from vmsim.contracts import NONE, Loop, Monitor, Vcpu
from vmsim.engine.hardware import Hardware
from vmsim.engine.serve import run_and_serve
from vmsim.engine.serve_shadow import run_and_serve_shadow
from vmsim.guest.kernel import GuestKernel
from vmsim.jit import opaque_core, opaque_llc, opaque_records
from vmsim.machine.vcpu import Reason, enter, prepare
from vmsim.workloads import Chunk

__all__ = ["Run", "Runs"]

_BUDGET = int(Reason.BUDGET)


class Run(NamedTuple):
    """How a run ended: as `machine.vcpu.run` says, and what compiled code has left of a fault under a shadow."""

    reason: int
    cursor: int
    cycles: int  # of the guest's own accesses; those of what was handled are owed already
    gva: int
    gpa: int
    code: int
    status: int = NONE
    value: int = 0


class Runs:
    """Runs of one vCPU.

    Parameters
    ----------
    hardware : Hardware
        The host's.
    vcpu, kernel, monitor
        Who runs, and who handles its faults.
    """

    def __init__(
        self,
        hardware: Hardware,
        vcpu: Vcpu,
        kernel: GuestKernel,
        monitor: Monitor,
    ) -> None:
        self.hardware = hardware
        self.vcpu = vcpu
        self.kernel = kernel
        self.monitor = monitor
        cores = hardware.cores
        self._handled = False
        self._target = prepare(cores, hardware.llc, vcpu.registers, hardware.memory)
        self._cores = [opaque_core(cores[number : number + 1]) for number in range(len(cores))]
        self._llc = opaque_llc(hardware.llc)
        self._vm = opaque_records(vcpu.registers)  # whose type tells 32-bit paging from other formats

    def expect(self, gva: int) -> None:
        """Tell compiled code what may be mapped around an address."""
        if self.monitor.serves:
            self.kernel.expect(self.vcpu.number, gva)

    def __call__(self, core: int, chunk: Chunk, cursor: int, limit: int, budget: int) -> Run:
        """Make the accesses [cursor, limit) of a chunk on a core, until one needs software or the budget is used."""
        address, count, kind, _ = chunk
        accesses = self._vm, self.hardware.memory, address, count, kind, cursor, limit, budget
        given = self._target, self._cores[core], self._llc, *accesses
        if not self.monitor.serves:
            return Run(*enter(*given))
        vcpu, kernel, monitor = self.vcpu, self.kernel, self.monitor
        given = *given, *kernel.served(vcpu.number), *monitor.served(vcpu.number)
        if monitor.loop is Loop.SHADOW:
            run = Run(*run_and_serve_shadow(*given))
            if monitor.pending:
                vcpu.owed += monitor.handled(run.cycles)
                self._handled = True
                if run.reason > _BUDGET or run.status != NONE or monitor.urgent:
                    self.account()
            return run
        *ended, served = run_and_serve(*given)
        if served:
            vcpu.owed += served
            self._handled = True
        if ended[0] > _BUDGET:
            self.account()
        return Run(*ended)

    def account(self) -> None:
        """Count what compiled code has handled and nobody has counted yet; the cycles of it are owed already."""
        if self._handled:
            self._handled = False
            owed = self.vcpu.owed
            self.kernel.account(self.vcpu)
            self.monitor.account(self.vcpu)
            self.vcpu.owed = owed
