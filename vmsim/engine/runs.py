"""Runs of a vCPU until it needs software that can wait; what cannot, compiled code does on the way where it may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from vmsim.contracts import NONE, Kernel, Monitor, Vcpu
from vmsim.contracts.commit import FORGET_UNTAGGED, clear_bill, make_bill
from vmsim.engine.hardware import Hardware
from vmsim.engine.loop import Accesses, Processor, run_until_exit
from vmsim.jit import opaque_core, opaque_llc, opaque_records, resolved
from vmsim.machine.flush import places_of, words_of_cores
from vmsim.machine.vcpu import Reason, enter, prepare
from vmsim.workloads import Chunk

__all__ = ["Run", "Runs"]

_BUDGET = int(Reason.BUDGET)


class Run(NamedTuple):
    """How a run ended: as `engine.loop.run_until_exit` says."""

    reason: int
    cursor: int
    cycles: int
    gva: int
    gpa: int
    code: int
    status: int = NONE
    value: int = 0
    spent: int = 0
    handled: bool = False


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
        kernel: Kernel,
        monitor: Monitor,
    ) -> None:
        self.vcpu = vcpu
        self.kernel = kernel
        self.monitor = monitor
        cores = hardware.cores
        self._bill = make_bill()
        self._pending = False
        self._target = prepare(cores, hardware.llc, vcpu.registers, hardware.memory)
        llc, vm = opaque_llc(hardware.llc), opaque_records(vcpu.registers)  # whose type tells 32-bit paging from others
        units = places_of(cores[:1])
        self._processors = [
            Processor(
                opaque_core(core),
                llc,
                vm,
                hardware.memory,
                words_of_cores(core),
                units,
                vcpu.registers["asid"],
                *vcpu.spaces.untagged(),
            )
            for core in (cores[number : number + 1] for number in range(len(cores)))
        ]
        self._run: Callable[..., Any] | None = None
        self._guest: Any = None

    def expect(self, gva: int) -> None:
        """Learn what the kernel may map around an address: at a run's start, and once it has handled a fault."""
        if self.monitor.compiled:
            self._guest = self.kernel.fast(self.vcpu.number, gva, self._bill)

    def __call__(self, core: int, chunk: Chunk, cursor: int, limit: int, budget: int) -> Run:
        """Make the accesses [cursor, limit) of a chunk on a core, until one needs software or the budget is used."""
        processor, accesses = self._processors[core], Accesses(chunk.address, chunk.count, chunk.kind)
        mode = self.monitor.fast(self.vcpu)
        if mode is None:
            return Run(*enter(self._target, *processor[:4], *accesses, cursor, limit, budget))
        if processor.kinds:
            self._bill["each"] = FORGET_UNTAGGED
            processor = processor._replace(untagged=self.vcpu.spaces.untagged()[0])  # there may be new spaces
        given = self._target, processor, accesses, self._guest, mode, cursor, limit, budget
        if self._run is None:
            self._run = resolved(run_until_exit, *given)
        *ended, pending = self._run(*given)
        run = Run(*ended)
        if pending:
            self._pending = True
            if run.reason > _BUDGET or run.status != NONE or pending > 1:
                self.collect()
        return run

    def collect(self) -> None:
        """Count what compiled code has handled and nobody has counted yet; the cycles of it are owed already."""
        if self._pending:
            self._pending = False
            owed, bill = self.vcpu.owed, self._bill
            self.kernel.collect(self.vcpu, bill)
            self.monitor.collect(self.vcpu, bill)
            clear_bill(bill)
            self.vcpu.owed = owed
