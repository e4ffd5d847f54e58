"""A VM from start to end: its parts are made, populated, run, counted, and given back."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.base.errors import InputError
from vmsim.base.ledger import Ledger, Reading
from vmsim.base.units import PAGE_ORDER
from vmsim.contracts import Flush, Frames, Moment, Monitor, Steps, Stop, VmStopped, Words
from vmsim.engine.alignment import alignment_of
from vmsim.engine.boot import BootVcpu
from vmsim.engine.crew import Crew, Stopped, register_vcpus
from vmsim.engine.drivers import make_drivers
from vmsim.engine.endings import ending_of
from vmsim.engine.files import Start
from vmsim.engine.parts import HostParts
from vmsim.engine.vcpu import Vcpu
from vmsim.frames.records import State
from vmsim.guest.kernel import GuestKernel
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.io import HostIo
from vmsim.host.limits import MemoryLimit
from vmsim.host.native_memory import NativeMemory
from vmsim.host.pressure import Pressure
from vmsim.host.shootdown import Shootdown
from vmsim.host.supply import Supply
from vmsim.machine.caches import Served
from vmsim.machine.layout import LEVELS, Count
from vmsim.machine.vm_spaces import VmSpaces
from vmsim.record.outcome import Ending, VmOutcome
from vmsim.scenario import Vm
from vmsim.tables.backing import IDENTITY
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
    registers : record[n]
        The register files of its vCPUs.
    spaces, io, pool, monitor, frames, kernel, vcpus, crew, shootdown
        Its address spaces, the host's side of its input and output, its page pool (None if it has none), what handles
        its exits, its kernel's frames, its kernel, its vCPUs by number, and what these share.
    slot : GuestMemory or None
        Where its memory lies; None if that is the host's own.
    pages : GuestMemory, NativeMemory or None
        What the host can take from it.
    limit : MemoryLimit, optional
        What the host lets it have.
    start : callable, optional
        Has a device work on its pages (`vmsim.engine.guest_disk.GuestDisk`).
    """

    def __init__(
        self,
        parts: HostParts,
        spec: Vm,
        stream: Stream,
        registers: NDArray[Any],
        *,
        spaces: VmSpaces,
        io: HostIo,
        pool: Supply | None,
        monitor: Monitor,
        frames: Frames,
        kernel: GuestKernel,
        vcpus: list[Vcpu],
        crew: Crew,
        shootdown: Shootdown,
        slot: GuestMemory | None,
        pages: GuestMemory | NativeMemory | None,
        limit: MemoryLimit | None = None,
        start: Start | None = None,
    ) -> None:
        self.parts = parts
        self._costs = parts.scenario.cpu.cost
        self.spec = spec
        self.stream = stream
        self.registers = registers
        self.spaces = spaces
        self.io = io
        self.pool = pool
        self.monitor = monitor
        self.frames = frames
        self.kernel = kernel
        self.vcpus = vcpus
        self.crew = crew
        self.shootdown = shootdown
        self.slot = slot
        self.pages = pages
        for vcpu in vcpus:
            vcpu.slice_ended = lambda: parts.observe(Moment.SLICE_ENDED, self)
        self.start = 0  # until it does
        self.finish: int | None = None
        self.gone = False
        self.stopped = False  # by its owner, before its workload's end
        self.ending: Ending | None = None
        self.memory: dict[str, int] = {}
        self.pressure: Pressure | None = None
        self.ledger = Ledger()
        self._warm: tuple[int, Reading] | None = None  # when the warm-up ended, and what had been counted by then
        self._running = len(vcpus)
        register_vcpus(self.ledger, vcpus)
        for register in (kernel.register, monitor.register, *([pool.register] if pool else [])):
            register(self.ledger)
        if limit:
            limit.end = lambda: self.kill(Stop.LIMIT)
            self.ledger.counters("memory_limit", lambda: limit.counts)
        shootdown.register(self.ledger, whole=len(vcpus) > 1 or bool(parts.scenario.daemons or spec.gives_memory))
        self._register()
        if pages:
            pages.forget = self.forget
        self.devices = make_drivers(self, start)
        self.balloon, self.virtio_mem, self.bilateral, self.files, self.reclaim, _ = self.devices
        kernel.files = self.files.cache if self.files else None
        self.drivers = self.devices.there

    @property
    def vcpu(self) -> Vcpu:
        """The vCPU that boots."""
        return self.vcpus[0]

    @property
    def now(self) -> int:
        """The cycle that the vCPU that is ahead of all others has reached."""
        return max(vcpu.now for vcpu in self.vcpus)

    def populate(self) -> None:
        """Back the VM's memory and map its workload's footprint before the clock starts.

        Raises
        ------
        VmStopped
            The host's memory, or the guest's, does not suffice.
        """
        self.monitor.prepare(self._take)
        for _ in self.kernel.boot(BootVcpu(self.parts.env, self.vcpu.registers, self.spaces[0])):
            pass  # what it settles takes no time yet
        self.monitor.forget()
        try:
            wanting = self.kernel.populate(*self.stream.footprint())
        except VmStopped:
            if not self.spec.bare:
                raise
            raise VmStopped(Stop.NOT_BACKED) from None
        self.frames.recount()
        self.parts.copies.begin(self.spec.index, self.registers)
        if self.spec.bare:
            self.parts.host.failures[self.spec.index, self.spec.guest_order] += wanting

    @property
    def memory_map(self) -> tuple[int, int, Words]:
        """Where its kernel's memory lies, as `tables.edit.find_address` is told: root and levels, and the backing."""
        return (0, 0, IDENTITY) if self.spec.bare else (*self.monitor.memory_root, self.monitor.backing)

    def live(self) -> Steps[None]:
        """Start, run the workload, and give everything back."""
        parts, env, boots = self.parts, self.parts.env, self.vcpu
        yield env.timeout(self.spec.start)
        self.start = env.cycle
        if self.spec.stop is not None:
            env.process(self._stop(self.spec.stop))
        self._count_in(boots)
        yield from boots.enter()
        try:
            if self.spec.populate == "lazy":
                yield from self.monitor.create(boots)
                yield from self.kernel.boot(boots)
            yield from self.monitor.begin(boots)
            for worker in self.monitor.workers:
                env.process(worker.run(self))
            for driver in self.drivers:
                driver.begin()
        except VmStopped as stop:
            self.ending = ending_of(self, stop)
            self.crew.stop()
        accesses = self.stream.accesses
        warmup = parts.scenario.warmup_accesses(accesses)
        self.crew.pauses = [(warmup, self._warmed)] if warmup else []
        self.crew.pauses += self.monitor.pauses(accesses)
        self.crew.pauses.sort(key=lambda pause: pause[0])
        others = [env.process(self._bring_up(vcpu)) for vcpu in self.vcpus[1:]]
        yield from self._run(boots)
        yield from others

    def _stop(self, when: int) -> Steps[None]:
        """Have the VM end before its next accesses from a time on."""
        yield self.parts.env.background(when - self.parts.env.cycle)
        if self.finish is None and not self.crew.stopped:
            self.stopped = True
            self.crew.stop()

    def _bring_up(self, vcpu: Vcpu) -> Steps[None]:
        """Have another vCPU take part."""
        self._count_in(vcpu)
        yield from vcpu.enter()
        yield from self._run(vcpu)

    def _count_in(self, vcpu: Vcpu) -> None:
        """Have the waits of a vCPU count as pressure on memory, where that is wanted."""
        if self.pressure:
            vcpu.pressure = self.pressure
            self.pressure.enter()

    def _run(self, vcpu: Vcpu) -> Steps[None]:
        """Run a vCPU's part of the workload; the last to have lived its time gives everything back."""
        try:
            if not self.crew.stopped:
                yield from self.kernel.start(vcpu)
                yield from vcpu.replay(self.kernel, self.monitor)
        except VmStopped as stop:
            if not self.crew.stopped:
                self.ending = ending_of(self, stop)
                self.crew.stop()
        except Stopped:
            pass  # the vCPU that has ended it says why
        if vcpu.runs:
            vcpu.runs.collect()  # what compiled code had done by then
        self.kernel.stop(vcpu)
        if self._running > 1:
            vcpu.spaces.flush_all()  # nobody tells it of changes any more
        yield vcpu.settle()  # what others do to it until then is before its end
        self._running -= 1
        last = self._running == 0
        for driver in self.drivers:
            driver.retire(vcpu)
        if last:
            self.monitor.finish(vcpu)
            yield from vcpu.serve()
            yield vcpu.settle()
            self.finish = self.parts.env.cycle
            self.memory = self._frames()
            self.parts.observe(Moment.VM_FINISHED, self)
        vcpu.leave()
        if self.pressure:
            self.pressure.leave()
        if last:
            yield from self._give_back()
            self.parts.observe(Moment.VM_GONE, self)

    @property
    def env(self) -> Clock:
        """Simulated time."""
        return self.parts.env

    @property
    def able(self) -> bool:
        """Whether its pages may be taken: it has booted, and not ended."""
        return self.kernel.root >= 0 and self.finish is None and not (self.spec.bare and self.kernel.editing)

    def drop(self, flush: Flush) -> None:
        """Drop what its processors have kept that a flush says."""
        if flush.nested:
            self.spaces.flush_nested()
        elif flush.linear:
            self.spaces.flush_all()

    @property
    def alive(self) -> bool:
        """Whether it has not ended, and nobody has said that it is to."""
        return self.finish is None and not self.crew.stopped

    def kill(self, why: Stop = Stop.KILLED, who: str = "") -> None:
        """Have it end, because the host has run out of memory, or it has reached its limit; `who` says why this one."""
        self.ending = ending_of(self, VmStopped(why, who=who))
        self.crew.stop()

    def forget(self, flush: Flush, by: Any = None, *, times: int = 1) -> int:
        """Have its processors forget what a flush says; return the cycles that this takes the host's processor.

        A vCPU `by` whose exit it is done for has left the guest already, and forgets before it goes on. A flush that
        stands for several, made one after the other, makes those that run leave the guest so many `times`.
        """
        self.drop(flush)
        edited = 0 if by else self.parts.copies.edited(self.spec.index)
        if not (flush.nested or flush.linear):
            return edited
        costs, begun = self._costs, by.now if by else self.env.cycle
        cycles = self.shootdown.kick([vcpu for vcpu in self.vcpus if vcpu is not by], times=times)
        held = cycles // max(times, 1) + costs.violation_entry
        return edited + cycles + self.monitor.held_by_host(begun, held, times, costs.host_zap)

    def outcome(self) -> VmOutcome:
        """Return the figures of the VM, its warm-up subtracted."""
        figures = self.ledger.read()
        if self.stopped and not self._warm and self.parts.scenario.warmup_accesses(self.stream.accesses):
            raise InputError(
                f"VM {self.spec.name}: stop comes before its warm-up ({self.parts.scenario.warmup}) has ended: nothing "
                "of it was measured. Stop it later, or choose a shorter warmup.",
                key=f"vm.{self.spec.group}.stop",
            )
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
            finished=self.finish is not None and self.ending is None and not self.stopped,
            figures=figures - first if first else figures,
            memory=self.memory or self._frames(),
            dirty=[*rounds.since(readings)],
            dirty_log=rounds.extent,
        )

    def _frames(self) -> dict[str, int]:
        """Return how many frames it has now by their use, and of its own pages those in a balloon, or huge."""
        found = self.parts.host.tally(self.spec.index) | self.devices.frames
        return found | (alignment_of(self)._asdict() if self.spec.thp or self.spec.host_thp else {})

    @property
    def _now(self) -> int:
        return self.now if self.finish is None else self.finish

    def _register(self) -> None:
        """Register what compiled code counts, where the time goes, and what the host did for the VM."""
        registers, ledger = self.registers, self.ledger
        levels, served = [str(level) for level in range(LEVELS)], [each.name for each in Served]
        counters = registers["counters"]
        ledger.counters("processor", lambda: {each.name.lower(): int(counters[:, each].sum()) for each in _COUNTED})
        ledger.counters("cycles", self._cycles)
        ledger.counters("host", self._failed_blocks)
        if (pages := self.pages) and self.parts.scenario.daemons:
            ledger.counters("guest_memory", lambda: {"taken": pages.taken, "returned": pages.returned})
        if paired := self.parts.paired:
            ledger.counters("compaction", lambda: paired.compacted(self.spec.index))
        ledger.array("walk_references", registers["refs"], levels, levels, served)
        ledger.array("pwc", registers["pwc"], ("guest", "nested"), levels, ("miss", "hit"))
        ledger.array("data", registers["data_refs"], served[: registers["data_refs"].shape[1]])

    def _cycles(self) -> dict[str, int]:
        """Return the VM's time by cause, what compiled code has counted and what its vCPUs have."""
        registers, counters = self.registers, self.registers["counters"].sum(axis=0)
        nested = int((registers["refs"][:, :, 1:].sum(axis=(0, 1, 2)) * self.parts.served_cycles).sum())
        look_ups = int(counters[Count.NTLB_HITS] + counters[Count.NTLB_MISSES])
        nested += look_ups * self.parts.scenario.cpu.ntlb.cycles
        nested += int(registers["node_cycles"][:, 1].sum() + registers["peer_cycles"][:, 1].sum())
        cycles = self.vcpu.time_by_cause()
        for vcpu in self.vcpus[1:]:
            cycles.update(vcpu.time_by_cause())
        return {
            "compute": int(counters[Count.COMPUTE_CYCLES]) + cycles.pop("compute"),
            "data": int(counters[Count.DATA_CYCLES]),
            "l2_tlb": int(counters[Count.L2_TLB_CYCLES]),
            "walk_guest": int(registers["walk_cycles"].sum()) - nested,
            "walk_nested": nested,
            **({"overlap": -int(registers["hidden"].sum())} if self.parts.scenario.host.overlap else {}),
            **cycles,
        }

    def _take(self, count: int, state: State) -> list[int]:
        """Return frames of the host's, before the clock starts."""
        if len(frames := self.parts.host.take(self.spec.index, count, state)) < count:
            raise VmStopped(Stop.NOT_BACKED)
        return [int(frame) for frame in frames]

    def _warmed(self, vcpu: Vcpu) -> Steps[None]:
        """Remember the figures so far: the warm-up ends here."""
        for runs in filter(None, (each.runs for each in self.vcpus)):
            runs.collect()
        self._warm = vcpu.now, self.ledger.read()
        return
        yield

    def _failed_blocks(self) -> dict[str, int]:
        """Return how often the host had memory, but not in one piece."""
        index, failures = self.spec.index, self.parts.host.failures
        large = sum(failures[index, order] for order in PAGE_ORDER.values() if order)
        return {"order_1_failures": failures[index, 1], "large_page_failures": large}

    def _give_back(self) -> Steps[None]:
        """Return all memory to the host; forget what the cores keep of the VM."""
        for driver in self.drivers:
            yield from driver.rest()
        self.spaces.close()
        self.gone = True
        self.parts.copies.close(self.spec.index)
        if self.pool:
            yield from self.pool.close()
        if self.pages:
            self.pages.close()
        self.parts.log("return", self.spec.name, self.parts.host.give_all(self.spec.index))
