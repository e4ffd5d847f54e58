"""Runs of a vCPU until it needs software that can wait; what cannot, compiled code does on the way where it may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NONE, Kernel, Monitor, Vcpu
from vmsim.contracts.commit import FORGET_UNTAGGED, OPERATION, Call, collected, make_bill, words_of
from vmsim.engine.hardware import Hardware
from vmsim.engine.loop import OPERATION_DUE, Accesses, Processor, run_until_exit
from vmsim.jit import opaque_core, opaque_llc, opaque_records, resolved
from vmsim.machine.flush import words_of_cores
from vmsim.machine.vcpu import Reason, enter, prepare
from vmsim.workloads import Chunk, Event, Op

__all__ = ["Ended", "Runs"]

_BUDGET = int(Reason.BUDGET)
_PLAIN: Final = ("C", "A", "W")  # of other arrays, such as decoded ones, the loop would be compiled once more
_CALLS: Final = {
    Op.COMPUTE: Call.COMPUTE,
    Op.MAP: Call.MAP,
    Op.UNMAP: Call.UNMAP,
    Op.PROTECT: Call.PROTECT,
    Op.DISCARD: Call.DISCARD,
}

Ended: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, bool, int, int]
"""How a run ended: as `engine.loop.run_until_exit` says."""


def _operations(events: tuple[Event, ...]) -> NDArray[Any]:
    """Return events as compiled code has them, OPERATION[n]."""
    rows = [
        (event.position, _call(event), event.pid, event.address, event.address + event.length, event.argument)
        for event in events
    ]
    return np.array(rows, np.int64).reshape(-1, len(OPERATION.fields or ())).view(OPERATION)[:, 0]


def _call(event: Event) -> Call:
    lazily = event.op == Op.DISCARD and event.argument != 0
    return Call.OTHER if lazily else _CALLS.get(event.op, Call.OTHER)


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
        self._bill = make_bill(first=vcpu.number)
        self._words = words_of(self._bill)
        self._pending = False
        self._shares = not kernel.alone
        self._events: tuple[Event, ...] = ()
        self._target = prepare(hardware.cores, hardware.llc, vcpu.registers, hardware.memory)
        self._processors: dict[int, Processor] = {}  # those that it has run on
        self._run: Callable[..., Any] | None = None
        self._guest: Any = None
        self._until = 0

    def expect(self) -> None:
        """Learn what the kernel may do, at a run's start and once it has handled a fault."""
        if self.monitor.compiled:
            self._guest = self.kernel.fast(self.vcpu.number, self._bill)

    def makes(self, event: Event) -> bool:
        """Whether compiled code carries out such operations, as long as nobody has to wait.

        Where none does, they are left to the process at the same moment.
        """
        return event.op in _CALLS

    def settles(self, op: Op) -> bool:
        """Whether an operation is to be made only when the others have come as far in time: it may concern them.

        A kernel with one CPU and frames of its own changes address spaces alone; frames of the host's that it frees
        are another's to have.
        """
        vcpu, kernel = self.vcpu, self.kernel
        if op in _CALLS and kernel.alone and kernel.frames.batch:
            return False
        return vcpu.owed > 0

    def begin(self, chunk: Chunk) -> None:
        """Make the accesses of a chunk from now on."""
        self._events = chunk.events
        address, count, kind = (np.require(each, None, _PLAIN) for each in (chunk.address, chunk.count, chunk.kind))
        self._accesses = Accesses(address, count, kind, _operations(chunk.events))

    def drain(self) -> None:
        """Have all accesses that are under way finished before the next is."""
        self.vcpu.registers["drained"] = 1

    def __call__(self, core: int, cursor: int, turn: int, limit: int, budget: int, quiet: int) -> Ended:
        """Make the accesses [cursor, limit) of the chunk on a core, until one needs software or the budget is used.

        The operations before them are carried out as well, from number `turn` on, or the run ends (OPERATION_DUE;
        SETTLEMENT_DUE). Nobody else does anything in the next `quiet` cycles.
        """
        now = self.vcpu.now
        if now != self._until:  # software has taken time since
            self.drain()
        ended = self._make(core, cursor, turn, limit, budget, quiet)
        self._until = now + ended[2]
        return ended

    def _make(self, core: int, cursor: int, turn: int, limit: int, budget: int, quiet: int) -> Ended:
        processor = self._processors.get(core) or self._add(core)
        mode = self.monitor.fast(self.vcpu)
        if mode is None:
            return self._enter(processor, cursor, turn, limit, budget)
        if processor.kinds:
            self._bill["each"] = FORGET_UNTAGGED
            processor = processor._replace(untagged=self.vcpu.spaces.untagged()[0])  # there may be new spaces
        if self._shares:
            self._bill["begun"] = self.vcpu.now
        run = self._run or self._resolve(processor, mode)
        where = cursor, turn, limit, budget, quiet
        ended: Ended = run(self._target, processor, self._accesses, self._guest, mode, *where)
        if ended[-1]:
            self._pending = True
            self.monitor.brought()
            if self._bill["forgot"][0]:  # the other cores are to be told before anybody else does anything
                self._bill["forgot"] = 0
                self.vcpu.spaces.forgot()
            if ended[0] > _BUDGET or ended[6] != NONE or ended[-1] > 1 or self.kernel.frames.wanted:
                self.collect()
        return ended

    def _enter(self, processor: Processor, cursor: int, turn: int, limit: int, budget: int) -> Ended:
        """Make the accesses before the next operation, where no compiled code handles exits."""
        if turn < len(self._events):
            limit = min(limit, self._events[turn].position)
        if limit == cursor:
            return OPERATION_DUE, cursor, 0, 0, 0, 0, NONE, 0, 0, False, turn, 0
        ended = enter(self._target, *processor[:4], *self._accesses[:3], cursor, limit, budget)
        return *ended, NONE, 0, 0, False, turn, 0

    def _add(self, number: int) -> Processor:
        """Run on another core."""
        hardware, vcpu = self._hardware, self.vcpu
        core, vm = hardware.cores[number : number + 1], opaque_records(vcpu.registers)  # whose type tells 32-bit paging
        self._processors[number] = made = Processor(
            opaque_core(core),
            opaque_llc(hardware.llc_of(number)),
            vm,
            hardware.memory,
            words_of_cores(core),
            hardware.places,
            vcpu.registers["asid"],
            vcpu.registers["drained"],
            *vcpu.spaces.untagged(),
        )
        return made

    def _resolve(self, processor: Processor, mode: tuple[Any, ...]) -> Callable[..., Any]:
        """Find the loop for the types of what it is given; they stay."""
        self._run = resolved(run_until_exit, self._target, processor, self._accesses, self._guest, mode, 0, 0, 0, 0, 0)
        return self._run

    def collect(self) -> None:
        """Count what compiled code has handled and nobody has counted yet; the cycles of it are owed already."""
        if self._pending:
            self._pending = False
            owed, done = self.vcpu.owed, collected(self._words)
            self.kernel.collect(self.vcpu, done)
            self.monitor.collect(self.vcpu, done)
            self.vcpu.owed = owed
