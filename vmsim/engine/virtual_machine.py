"""A VM from start to end: its parts are made, populated, run, counted, and given back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from vmsim.base.units import PAGE_ORDER
from vmsim.contracts import Frames, Moment, Monitor, Steps, Stop, VmStopped
from vmsim.engine.boot import BootVcpu
from vmsim.engine.endings import ending_of
from vmsim.engine.parts import HostParts
from vmsim.engine.vcpu import MANAGEMENT, WAITS, Pause, Vcpu
from vmsim.frames.buddy import State
from vmsim.guest.kernel import GuestKernel
from vmsim.host.io import HostIo
from vmsim.host.pool import PagePool
from vmsim.machine.layout import Count, make_vm
from vmsim.machine.tags import Spaces
from vmsim.record.outcome import Ending, VmOutcome
from vmsim.scenario import Vm
from vmsim.workloads import Stream

__all__ = ["VirtualMachine"]

UNFINISHED = "UNFINISHED"  # the reason, in the table of exits, of one that was under way when a run ended early


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What has been counted of a VM up to some moment."""

    time: int
    registers: NDArray[Any]
    cycles: Counter[str]
    first_touch: Counter[str]
    waits: Counter[str]
    exits: Counter[str]
    exit_cycles: Counter[str]
    latency: Counter[int]
    guest_faults: int
    figures: Counter[str]


class VirtualMachine:
    """A VM from start to end, its parts given (`vmsim.engine.build`).

    Parameters
    ----------
    parts : HostParts
        Its host.
    spec, stream
        What it is, and its workload.
    registers : record[1]
        Its register file.
    spaces, io, pool, monitor, frames, kernel, vcpu
        Its address spaces, the host's side of its input and output, its page pool (None if it has none), what handles
        its exits, its kernel's frames, its kernel, and its vCPU.
    """

    def __init__(
        self,
        parts: HostParts,
        spec: Vm,
        stream: Stream,
        registers: NDArray[Any],
        *,
        spaces: Spaces,
        io: HostIo,
        pool: PagePool | None,
        monitor: Monitor,
        frames: Frames,
        kernel: GuestKernel,
        vcpu: Vcpu,
    ) -> None:
        self.parts = parts
        self.spec = spec
        self.stream = stream
        self.registers = registers
        self.spaces = spaces
        self.io = io
        self.pool = pool
        self.monitor = monitor
        self.frames = frames
        self.kernel = kernel
        self.vcpu = vcpu
        self.vcpu.slice_ended = lambda: parts.observe(Moment.SLICE_ENDED, self)
        self.start = 0  # until it does
        self.finish: int | None = None
        self.gone = False
        self.ending: Ending | None = None
        self.memory: dict[str, int] = {}
        self._warm: _Snapshot | None = None

    def populate(self) -> None:
        """Back the VM's memory and map its workload's footprint before the clock starts.

        Raises
        ------
        VmStopped
            The host's memory, or the guest's, does not suffice.
        """
        self.monitor.prepare(self._take)
        for _ in self.kernel.boot(BootVcpu(self.parts.env)):
            pass  # what it settles takes no time yet
        self.monitor.forget()
        try:
            wanting = self.kernel.populate(*self.stream.footprint())
        except VmStopped:
            if not self.spec.bare:
                raise
            raise VmStopped(Stop.NOT_BACKED) from None
        self.frames.recount()
        if self.spec.bare:
            self.parts.host.failures[self.spec.index, self.spec.guest_order] += wanting

    @property
    def memory_root(self) -> tuple[int, int]:
        """Root (hpa) and levels of the tables that say where its kernel's memory lies; (0, 0) if that is the host's."""
        return (0, 0) if self.spec.bare else self.monitor.memory_root

    def live(self) -> Steps[None]:
        """Start, run the workload, and give everything back."""
        parts, env = self.parts, self.parts.env
        yield env.timeout(self.spec.start)
        self.start = env.cycle
        yield from self.vcpu.enter()
        try:
            if self.spec.populate == "lazy":
                yield from self.monitor.create(self.vcpu)
                yield from self.kernel.boot(self.vcpu)
            yield from self.monitor.begin(self.vcpu)
            accesses = self.stream.accesses
            warmup = parts.scenario.warmup_accesses(accesses)
            pauses: list[Pause] = [(warmup, self._warmed)] if warmup else []
            pauses += self.monitor.pauses(accesses)
            pauses.sort(key=lambda pause: pause[0])
            yield from self.vcpu.replay(self.kernel, self.monitor, pauses)
        except VmStopped as stop:
            self.ending = ending_of(self, stop)
        self.monitor.finish(self.vcpu)
        yield self.vcpu.settle()
        self.finish = env.cycle
        self.memory = parts.host.count(self.spec.index)
        parts.observe(Moment.VM_FINISHED, self)
        self.vcpu.leave()
        yield from self._give_back()
        parts.observe(Moment.VM_GONE, self)

    def outcome(self) -> VmOutcome:
        """Return the figures of the VM, its warm-up subtracted."""
        last = self._snapshot()
        first = self._warm or _Snapshot(
            self.start,
            make_vm(),
            Counter(),
            Counter(),
            Counter(),
            Counter(),
            Counter(),
            Counter(),
            guest_faults=0,
            figures=Counter(),
        )
        now, then = last.registers[0], first.registers[0]
        counts = {count.name.lower(): int((now["counters"] - then["counters"])[count]) for count in Count}
        refs = now["refs"] - then["refs"]
        cycles = {cause: last.cycles[cause] - first.cycles[cause] for cause in last.cycles}
        nested = int((refs[:, 1:].sum(axis=(0, 1)) * self.parts.served_cycles).sum())
        nested += (counts["ntlb_hits"] + counts["ntlb_misses"]) * self.parts.scenario.cpu.ntlb.cycles
        return VmOutcome(
            name=self.spec.name,
            index=self.spec.index,
            group=self.spec.group,
            mode=self.spec.mode,
            workload=self.stream.name,
            start=first.time,
            finish=last.time,
            finished=self.finish is not None and self.ending is None,
            counters={name: value for name, value in counts.items() if not name.endswith("_cycles")},
            refs=refs,
            pwc=now["pwc"] - then["pwc"],
            data=now["data_refs"] - then["data_refs"],
            cycles={
                "compute": counts["compute_cycles"] + cycles.pop("compute"),
                "data": counts["data_cycles"],
                "l2_tlb": counts["l2_tlb_cycles"],
                "walk_guest": int(now["walk_cycles"] - then["walk_cycles"]) - nested,
                "walk_nested": nested,
                **cycles,
            },
            first_touch={cause: last.first_touch[cause] - first.first_touch[cause] for cause in MANAGEMENT},
            exits={
                reason: (last.exits[reason] - first.exits[reason], last.exit_cycles[reason] - first.exit_cycles[reason])
                for reason in last.exits
            },
            waits={cause: last.waits[cause] - first.waits[cause] for cause in WAITS},
            fault_latency=dict(sorted((last.latency - first.latency).items())),
            guest_faults=last.guest_faults - first.guest_faults,
            memory=self.memory or self.parts.host.count(self.spec.index),
            figures={name: last.figures[name] - first.figures[name] for name in last.figures},
            dirty=self.monitor.rounds[first.figures["dirty_rounds"] :],
        )

    def _take(self, count: int, state: State) -> list[int]:
        """Return frames of the host's, before the clock starts."""
        frames = self.parts.host.take(self.spec.index, count, state)
        if len(frames) < count:
            raise VmStopped(Stop.NOT_BACKED)
        return [int(frame) for frame in frames]

    def _warmed(self, vcpu: Vcpu) -> Steps[None]:
        """Remember the figures so far: the warm-up ends here."""
        self._warm = self._snapshot()
        return
        yield

    def _snapshot(self) -> _Snapshot:
        monitor = self.monitor
        exits, exit_cycles = monitor.exits.copy(), monitor.exit_cycles.copy()
        if monitor.unfinished_cycles:
            exits[UNFINISHED], exit_cycles[UNFINISHED] = 0, monitor.unfinished_cycles
        return _Snapshot(
            self.vcpu.now if self.finish is None else self.finish,
            self.registers.copy(),
            self.vcpu.time_by_cause(),
            self.vcpu.first_touch_by_cause(),
            self.vcpu.waits.copy(),
            exits,
            exit_cycles,
            monitor.latency.copy(),
            self.kernel.faults,
            Counter(monitor.figures() | self._wanting()),
        )

    def _wanting(self) -> dict[str, int]:
        """Return how often the host had memory, but not in one piece, and what was done about it."""
        parts, index = self.parts, self.spec.index
        failures = parts.host.failures
        return {
            "order_1_failures": failures[index, 1],
            "large_page_failures": sum(failures[index, order] for order in PAGE_ORDER.values() if order),
            **(parts.paired.compacted(index) if parts.paired else {}),
        }

    def _give_back(self) -> Steps[None]:
        """Return all memory to the host; forget what the cores keep of the VM."""
        self.spaces.close()
        self.gone = True
        if self.pool:
            yield from self.pool.close()
        pages = self.parts.host.give_all(self.spec.index)
        self.parts.log("return", self.spec.name, pages)
