"""Runs of a vCPU until it needs software that can wait; what cannot, compiled code does on the way where it may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from vmsim.contracts import NONE, Kernel, Monitor, Vcpu
from vmsim.contracts.commit import FORGET_UNTAGGED, clear_bill, make_bill
from vmsim.engine.hardware import Hardware
from vmsim.engine.loop import Accesses, Processor, run_until_exit
from vmsim.jit import opaque_core, opaque_llc, opaque_records, resolved
from vmsim.machine.flush import words_of_cores
from vmsim.machine.vcpu import Reason, enter, prepare
from vmsim.workloads import Chunk

__all__ = ["Ended", "Runs"]

_BUDGET = int(Reason.BUDGET)
_UNHANDLED = NONE, 0, 0, False, 0

Ended: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, bool, int]
"""How a run ended: as `engine.loop.run_until_exit` says."""


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
        self._hardware = hardware
        self._bill = make_bill()
        self._pending = False
        self._target = prepare(hardware.cores, hardware.llc, vcpu.registers, hardware.memory)
        self._processors: dict[int, Processor] = {}  # those that it has run on
        self._run: Callable[..., Any] | None = None
        self._guest: Any = None

    def expect(self, gva: int) -> None:
        """Learn what the kernel may map around an address: at a run's start, and once it has handled a fault."""
        if self.monitor.compiled:
            self._guest = self.kernel.fast(self.vcpu.number, gva, self._bill)

    def begin(self, chunk: Chunk) -> None:
        """Make the accesses of a chunk from now on."""
        self._accesses = Accesses(chunk.address, chunk.count, chunk.kind)

    def __call__(self, core: int, cursor: int, limit: int, budget: int) -> Ended:
        """Make the accesses [cursor, limit) of the chunk on a core, until one needs software or the budget is used."""
        processor = self._processors.get(core) or self._add(core)
        mode = self.monitor.fast(self.vcpu)
        if mode is None:
            given = self._target, *processor[:4], *self._accesses, cursor, limit, budget
            return *enter(*given), *_UNHANDLED
        if processor.kinds:
            self._bill["each"] = FORGET_UNTAGGED
            processor = processor._replace(untagged=self.vcpu.spaces.untagged()[0])  # there may be new spaces
        run = self._run or self._resolve(processor, mode)
        ended: Ended = run(self._target, processor, self._accesses, self._guest, mode, cursor, limit, budget)
        if ended[-1]:
            self._pending = True
            if ended[0] > _BUDGET or ended[6] != NONE or ended[-1] > 1:
                self.collect()
        return ended

    def _add(self, number: int) -> Processor:
        """Run on another core."""
        hardware, vcpu = self._hardware, self.vcpu
        core, vm = hardware.cores[number : number + 1], opaque_records(vcpu.registers)  # whose type tells 32-bit paging
        self._processors[number] = made = Processor(
            opaque_core(core),
            opaque_llc(hardware.llc),
            vm,
            hardware.memory,
            words_of_cores(core),
            hardware.places,
            vcpu.registers["asid"],
            *vcpu.spaces.untagged(),
        )
        return made

    def _resolve(self, processor: Processor, mode: tuple[Any, ...]) -> Callable[..., Any]:
        """Find the loop for the types of what it is given; they stay."""
        self._run = resolved(run_until_exit, self._target, processor, self._accesses, self._guest, mode, 0, 0, 0)
        return self._run

    def collect(self) -> None:
        """Count what compiled code has handled and nobody has counted yet; the cycles of it are owed already."""
        if self._pending:
            self._pending = False
            owed, bill = self.vcpu.owed, self._bill
            self.kernel.collect(self.vcpu, bill)
            self.monitor.collect(self.vcpu, bill)
            clear_bill(bill)
            self.vcpu.owed = owed
