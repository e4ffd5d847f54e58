"""A VM from start to end: its parts are made, populated, run, counted, and given back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import simpy
from numpy.typing import NDArray

from vmsim.base.progress import Progress
from vmsim.base.units import PAGE_ORDER
from vmsim.contracts import Steps, Stop, VmStopped
from vmsim.engine.boot import BootVcpu
from vmsim.engine.build import make_mmu, make_monitor
from vmsim.engine.endings import ending_of
from vmsim.engine.kernel_accesses import make_direct_map
from vmsim.engine.vcpu import MANAGEMENT, WAITS, Pause, Vcpu
from vmsim.frames.buddy import State
from vmsim.guest.frames import GuestFrames
from vmsim.guest.kernel import GuestKernel
from vmsim.guest.mmu import HardwareMmu
from vmsim.guest.process import LINUX_PCIDS
from vmsim.host.bare import BareFrames
from vmsim.host.io import HostIo
from vmsim.host.pool import PagePool
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.layout import Count, make_vm
from vmsim.monitor.agile.monitor import Agile
from vmsim.monitor.base import SoftwareMonitor
from vmsim.monitor.features.dirty_log import LoggedTdp
from vmsim.monitor.features.nx_split import NxSplitTdp
from vmsim.monitor.paired.guest import PairedGuest
from vmsim.monitor.paired.monitor import Paired
from vmsim.monitor.paired.process import Halves, PairedFrames, PairedMmu, nested_format
from vmsim.monitor.paired.space import limit_of
from vmsim.monitor.shadow.monitor import Shadow
from vmsim.monitor.tdp.monitor import Tdp
from vmsim.monitor.vkernel.monitor import Vkernel
from vmsim.record.outcome import Ending, VmOutcome
from vmsim.scenario import Vm
from vmsim.scenario.share import share_of
from vmsim.workloads import Stream

if TYPE_CHECKING:
    from vmsim.engine.simulation import Simulation

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
    """A VM from start to end: registers, vCPU, guest kernel and, unless it runs bare, monitor and page pool."""

    def __init__(self, simulation: Simulation, spec: Vm, stream: Stream, progress: Progress | None) -> None:
        self.simulation = simulation
        self.spec = spec
        self.stream = stream
        self.registers = make_vm(spec.guest_levels)
        self.registers["levels"] = 2 if spec.pdpte_registers else spec.guest_levels
        self.registers["largest"] = 3 if simulation.scenario.pages_1g else 2
        self.registers["compute"] = spec.workload.compute
        self.spaces = simulation.tags.spaces(
            self.registers,
            spec.index,
            tags=None if spec.bare else spec.tags,
            apart=spec.paging.apart if spec.pcid else None,
            kernel=None if spec.kernel_accesses == "free" else "own" if spec.paging.apart == "tag" else "global",
        )
        costs = simulation.scenario.cpu.cost
        self.io = HostIo(simulation.env, simulation.host, costs, simulation.messages, owner=spec.index)
        self.vcpu = Vcpu(
            simulation.env,
            simulation.hardware,
            simulation.scheduler,
            self.registers,
            stream,
            spaces=self.spaces,
            index=spec.index,
            quantum=simulation.scenario.quantum,
            switch_cycles=costs.context_switch,
            device=self._device,
            progress=(lambda done: progress(spec.name, done, stream.accesses)) if progress else lambda _: None,
            boundary=simulation.boundary,
            serve=simulation.serve and spec.kernel_accesses == "free",
        )
        self.pool: PagePool | None = None
        self.monitor: Tdp | Shadow | Vkernel | None = None
        if not spec.bare:
            self.pool = PagePool(
                simulation.env,
                simulation.host,
                spec.pool,
                costs,
                owner=spec.index,
                name=spec.name,
                log=simulation.transfers.append,
                messages=simulation.messages,
            )
            self.monitor = make_monitor(simulation, spec, self.registers, self.spaces, self.pool)
        self.paired: PairedMmu | None = None
        mmu: HardwareMmu | PairedMmu | Shadow | Vkernel
        mmu = make_mmu(simulation.hardware.memory, self.registers, self.spaces, self.monitor)
        direct_map = make_direct_map(simulation.hardware, spec, self.registers, self.spaces, self.monitor)
        self.frames: GuestFrames | BareFrames | PairedFrames = (
            GuestFrames(spec.pages, direct_map or self.monitor, owner=spec.index)
            if self.monitor
            else BareFrames(simulation.host, owner=spec.index, limit=spec.pages)
        )
        if simulation.paired and isinstance(self.frames, BareFrames) and spec.mode == "paired":
            form, reason = nested_format(simulation.scenario.cpu, spec.own.layout)
            tables = Halves(simulation.paired, spec.own.layout, owner=spec.index, levels=spec.guest_levels)
            flush = self.spaces.flush_nested
            mmu = self.paired = PairedMmu(mmu, tables, form, owner=spec.index, flush_nested=flush)
            self.frames = PairedFrames(self.frames, tables)
        self.kernel = GuestKernel(
            simulation.hardware.memory,
            direct_map or mmu,
            self.frames,
            levels=spec.guest_levels,
            kernel_half=direct_map,
            pcids=spec.paging.spaces or (LINUX_PCIDS if spec.pcid else 0),
            page_order=spec.guest_order,
            costs=costs,
            ranges=self.paired,
        )
        self.becoming: PairedGuest | None = None
        if self.paired and spec.becomes_guest:
            self.becoming = PairedGuest(
                spec.name,
                self.kernel,
                self.paired,
                self.registers,
                become=lambda: self.spaces.become(spec.tags or "none"),
                levels=spec.guest_levels,
                reason=reason,
                costs=costs,
                regions=stream.footprint(),
                exited=self.spaces.exited,
            )
        if isinstance(self.monitor, SoftwareMonitor):
            self.monitor.deliver = self.kernel.page_fault
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
        if self.monitor:
            root = self.simulation.host.take(self.spec.index, 1, State.TABLE)
            if not len(root):
                raise VmStopped(Stop.NOT_BACKED)
            self.monitor.install(int(root[0]))
            self.monitor.populate()
        if isinstance(self.monitor, SoftwareMonitor):
            pages = self.simulation.host.take(self.spec.index, self.monitor.first_frames, State.POOL)
            if len(pages) < self.monitor.first_frames:
                raise VmStopped(Stop.NOT_BACKED)
            self.monitor.provide(pages.tolist())
        for _ in self.kernel.boot(BootVcpu(self.simulation.env)):
            pass  # what it settles takes no time yet
        if isinstance(self.monitor, SoftwareMonitor):
            self.monitor.forget()
        try:
            wanting = self.kernel.populate(*self.stream.footprint())
        except VmStopped:
            if self.monitor:
                raise
            raise VmStopped(Stop.NOT_BACKED) from None
        if isinstance(self.frames, BareFrames):
            self.frames.recount()
            self.simulation.host.failures[self.spec.index, self.spec.guest_order] += wanting

    @property
    def root(self) -> int:
        """Address of the root of the tables that its processor walks first; negative before its kernel has booted."""
        return self.becoming.root if self.becoming and self.becoming.running else self.kernel.root

    @property
    def memory_root(self) -> tuple[int, int]:
        """Root (hpa) and levels of the tables that say where its memory lies; (0, 0) if gpas are hpas."""
        return self.monitor.memory_root if self.monitor else (0, 0)

    @property
    def kernel_in_nested(self) -> bool:
        """Whether the root of its nested tables has the host kernel's mappings too, from UVPT on."""
        return isinstance(self.monitor, Paired) and self.spec.own.layout == "shared"

    @property
    def pairs(self) -> list[tuple[int, int, int, int]]:
        """(KPT, EPT, levels, limit) of each address space that is mapped twice; roots as hpas."""
        paired, spec = self.simulation.paired, self.spec
        if paired is None or spec.mode != "paired" or spec.own.layout == "shared":
            return []
        if isinstance(self.monitor, Paired):
            return [(self.monitor.space.kpt, self.monitor.root, spec.host_levels, limit_of(spec.host_levels))]
        if self.paired is None or not self.paired.tables.two:
            return []
        roots = {process.space.root for process in self.kernel.processes.values()}
        halves = [self.paired.tables.of(root >> PAGE_SHIFT) for root in sorted(roots)]
        end = 1 << (PAGE_SHIFT + 9 * spec.guest_levels)
        return [(kpt << PAGE_SHIFT, ept << PAGE_SHIFT, spec.guest_levels, end) for kpt, ept in halves]

    def live(self) -> Steps[None]:
        """Start, run the workload, and give everything back."""
        env = self.simulation.env
        yield env.timeout(self.spec.start)
        self.start = env.cycle
        yield from self.vcpu.enter()
        try:
            if self.spec.populate == "lazy":
                if self.monitor:
                    yield from self.monitor.create(self.vcpu)
                yield from self.kernel.boot(self.vcpu)
            if isinstance(self.monitor, Agile | LoggedTdp | NxSplitTdp):
                yield from self.monitor.begin(self.vcpu)
            warmup = self.simulation.scenario.warmup_accesses(self.stream.accesses)
            pauses: list[Pause] = [(warmup, self._warmed)] if warmup else []
            if (becoming := self.becoming) and self.spec.own.guest_at is not None:
                at = share_of(self.spec.own.guest_at, self.stream.accesses)
                pauses.append((at, lambda: becoming.begin(self.vcpu)))
            pauses.sort(key=lambda pause: pause[0])
            yield from self.vcpu.replay(self.kernel, self.monitor or becoming, pauses)
        except VmStopped as stop:
            self.ending = ending_of(self, stop)
        if isinstance(self.monitor, LoggedTdp) and self.monitor.logging:
            self.monitor.read(self.vcpu)
        yield self.vcpu.settle()
        self.finish = env.cycle
        self.memory = self.simulation.host.count(self.spec.index)
        self.simulation.boundary(f"the end of {self.spec.name}")
        self.vcpu.leave()
        yield from self._give_back()
        self.simulation.boundary(f"what {self.spec.name} had was given back")

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
        nested = int((refs[:, 1:].sum(axis=(0, 1)) * self.simulation.served_cycles).sum())
        nested += (counts["ntlb_hits"] + counts["ntlb_misses"]) * self.simulation.scenario.cpu.ntlb.cycles
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
            memory=self.memory or self.simulation.host.count(self.spec.index),
            figures={name: last.figures[name] - first.figures[name] for name in last.figures},
            dirty=self.monitor.rounds[first.figures["dirty_rounds"] :] if isinstance(self.monitor, LoggedTdp) else [],
        )

    def _device(self, gfns: NDArray[Any], nanoseconds: int) -> simpy.Event:
        """Have a device work; a VM's pages are pinned by its host, on its monitor's behalf."""
        cycles = nanoseconds * self.simulation.scenario.cpu.frequency // 10**9
        if self.monitor is None:
            return self.simulation.env.timeout(cycles)
        return self.io.start(gfns, cycles, find=self.monitor.frames_of)

    def _warmed(self) -> Steps[None]:
        """Remember the figures so far: the warm-up ends here."""
        self._warm = self._snapshot()
        return
        yield

    def _snapshot(self) -> _Snapshot:
        monitor = self.monitor or self.becoming
        exits, exit_cycles = (
            (monitor.exits.copy(), monitor.exit_cycles.copy()) if monitor else (Counter[str](), Counter[str]())
        )
        if isinstance(monitor, SoftwareMonitor) and monitor.unfinished_cycles:
            exits[UNFINISHED], exit_cycles[UNFINISHED] = 0, monitor.unfinished_cycles
        return _Snapshot(
            self.vcpu.now if self.finish is None else self.finish,
            self.registers.copy(),
            self.vcpu.time_by_cause(),
            self.vcpu.first_touch_by_cause(),
            self.vcpu.waits.copy(),
            exits,
            exit_cycles,
            monitor.latency.copy() if monitor else Counter(),
            self.kernel.faults,
            Counter((monitor.figures() if isinstance(monitor, SoftwareMonitor | LoggedTdp) else {}) | self._wanting()),
        )

    def _wanting(self) -> dict[str, int]:
        """Return how often the host had memory, but not in one piece, and what was done about it."""
        simulation, index = self.simulation, self.spec.index
        failures = simulation.host.failures
        return {
            "order_1_failures": failures[index, 1],
            "large_page_failures": sum(failures[index, order] for order in PAGE_ORDER.values() if order),
            **(simulation.paired.compacted(index) if simulation.paired else {}),
        }

    def _give_back(self) -> Steps[None]:
        """Return all memory to the host; forget what the cores keep of the VM."""
        simulation = self.simulation
        self.spaces.close()
        self.gone = True
        if self.pool:
            yield from self.pool.close()
        pages = simulation.host.give_all(self.spec.index)
        simulation.log("return", self.spec.name, pages)
