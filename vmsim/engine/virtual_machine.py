"""A VM from start to end: its parts are made, populated, run, counted, and given back."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.base.ledger import Ledger, Reading
from vmsim.base.units import PAGE_ORDER
from vmsim.contracts import Flush, Frames, Moment, Monitor, Steps, Stop, VmStopped
from vmsim.engine.boot import BootVcpu
from vmsim.engine.endings import ending_of
from vmsim.engine.parts import HostParts
from vmsim.engine.vcpu import Pause, Vcpu
from vmsim.frames.buddy import State
from vmsim.guest.kernel import GuestKernel
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.io import HostIo
from vmsim.host.native_memory import NativeMemory
from vmsim.host.pool import PagePool
from vmsim.machine.caches import Served
from vmsim.machine.layout import LEVELS, Count
from vmsim.machine.tags import Spaces
from vmsim.record.outcome import Ending, VmOutcome
from vmsim.scenario import Vm
from vmsim.workloads import Stream

__all__ = ["VirtualMachine"]

_COUNTED = [count for count in Count if not count.name.endswith("_CYCLES")]  # times are among the causes


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
    slot : GuestMemory or None
        Where its memory lies; None if that is the host's own.
    pages : GuestMemory, NativeMemory or None
        What the host can take from it.
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
        slot: GuestMemory | None,
        pages: GuestMemory | NativeMemory | None,
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
        self.slot = slot
        self.pages = pages
        self.vcpu.slice_ended = lambda: parts.observe(Moment.SLICE_ENDED, self)
        self.start = 0  # until it does
        self.finish: int | None = None
        self.gone = False
        self.ending: Ending | None = None
        self.memory: dict[str, int] = {}
        self.ledger = Ledger()
        self._warm: tuple[int, Reading] | None = None  # when the warm-up ended, and what had been counted by then
        for register in (vcpu.register, kernel.register, monitor.register, *([pool.register] if pool else [])):
            register(self.ledger)
        self._register()

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
            for worker in self.monitor.workers:
                env.process(worker.run(self))
            accesses = self.stream.accesses
            warmup = parts.scenario.warmup_accesses(accesses)
            pauses: list[Pause] = [(warmup, self._warmed)] if warmup else []
            pauses += self.monitor.pauses(accesses)
            pauses.sort(key=lambda pause: pause[0])
            yield from self.vcpu.replay(self.kernel, self.monitor, pauses)
        except VmStopped as stop:
            self.ending = ending_of(self, stop)
        yield self.vcpu.settle()  # what others do to it until then is before its end
        self.monitor.finish(self.vcpu)
        yield self.vcpu.settle()
        self.finish = env.cycle
        self.memory = parts.host.count(self.spec.index)
        parts.observe(Moment.VM_FINISHED, self)
        self.vcpu.leave()
        yield from self._give_back()
        parts.observe(Moment.VM_GONE, self)

    @property
    def env(self) -> Clock:
        """Simulated time."""
        return self.parts.env

    @property
    def vcpus(self) -> tuple[Vcpu, ...]:
        """All its vCPUs."""
        return (self.vcpu,)

    @property
    def able(self) -> bool:
        """Whether its pages may be taken: it has booted, and not ended."""
        return self.kernel.root >= 0 and self.finish is None and not (self.spec.bare and self.kernel.editing)

    def forget(self, flush: Flush) -> None:
        """Have its processors forget what a flush says."""
        if flush.nested:
            self.spaces.flush_nested()
        elif flush.linear:
            self.spaces.flush_all()

    def outcome(self) -> VmOutcome:
        """Return the figures of the VM, its warm-up subtracted."""
        figures = self.ledger.read()
        start, first = self._warm or (self.start, None)
        readings = first.named("dirty_log").get("readings", 0) if first else 0
        rounds = self.monitor.rounds
        return VmOutcome(
            name=self.spec.name,
            index=self.spec.index,
            group=self.spec.group,
            mode=self.spec.mode,
            workload=self.stream.name,
            start=start,
            finish=self._now,
            finished=self.finish is not None and self.ending is None,
            figures=figures - first if first else figures,
            memory=self.memory or self.parts.host.count(self.spec.index),
            dirty=[*rounds.since(readings)],
            dirty_log=rounds.extent,
        )

    @property
    def _now(self) -> int:
        return self.vcpu.now if self.finish is None else self.finish

    def _register(self) -> None:
        """Register what compiled code counts, where the time goes, and what the host did for the VM."""
        registers, ledger = self.registers[0], self.ledger
        levels, served = [str(level) for level in range(LEVELS)], [each.name for each in Served]
        counters = registers["counters"]
        ledger.counters("processor", lambda: {count.name.lower(): int(counters[count]) for count in _COUNTED})
        ledger.counters("cycles", self._cycles)
        ledger.counters("host", self._wanting)
        if (pages := self.pages) and self.parts.scenario.daemons:
            ledger.counters("guest_memory", lambda: {"taken": pages.taken, "returned": pages.returned})
        if paired := self.parts.paired:
            ledger.counters("compaction", lambda: paired.compacted(self.spec.index))
        ledger.array("walk_references", registers["refs"], levels, levels, served)
        ledger.array("pwc", registers["pwc"], ("guest", "nested"), levels, ("miss", "hit"))
        ledger.array("data", registers["data_refs"], served[: registers["data_refs"].size])

    def _cycles(self) -> dict[str, int]:
        """Return the VM's time by cause, what compiled code has counted and what the vCPU has."""
        registers, counters = self.registers[0], self.registers[0]["counters"]
        nested = int((registers["refs"][:, 1:].sum(axis=(0, 1)) * self.parts.served_cycles).sum())
        look_ups = int(counters[Count.NTLB_HITS] + counters[Count.NTLB_MISSES])
        nested += look_ups * self.parts.scenario.cpu.ntlb.cycles
        cycles = self.vcpu.time_by_cause()
        return {
            "compute": int(counters[Count.COMPUTE_CYCLES]) + cycles.pop("compute"),
            "data": int(counters[Count.DATA_CYCLES]),
            "l2_tlb": int(counters[Count.L2_TLB_CYCLES]),
            "walk_guest": int(registers["walk_cycles"]) - nested,
            "walk_nested": nested,
            **cycles,
        }

    def _take(self, count: int, state: State) -> list[int]:
        """Return frames of the host's, before the clock starts."""
        frames = self.parts.host.take(self.spec.index, count, state)
        if len(frames) < count:
            raise VmStopped(Stop.NOT_BACKED)
        return [int(frame) for frame in frames]

    def _warmed(self, vcpu: Vcpu) -> Steps[None]:
        """Remember the figures so far: the warm-up ends here."""
        self._warm = self._now, self.ledger.read()
        return
        yield

    def _wanting(self) -> dict[str, int]:
        """Return how often the host had memory, but not in one piece."""
        index, failures = self.spec.index, self.parts.host.failures
        return {
            "order_1_failures": failures[index, 1],
            "large_page_failures": sum(failures[index, order] for order in PAGE_ORDER.values() if order),
        }

    def _give_back(self) -> Steps[None]:
        """Return all memory to the host; forget what the cores keep of the VM."""
        self.spaces.close()
        self.gone = True
        if self.pool:
            yield from self.pool.close()
        pages = self.parts.host.give_all(self.spec.index)
        self.parts.log("return", self.spec.name, pages)
