"""Wire hosts, monitors and guests together and run them: simulate(scenario) → Outcome."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.clock import Clock
from vmsim.guest.frames import GuestFrames, GuestMemoryError
from vmsim.guest.kernel import GuestKernel
from vmsim.hardware import Hardware
from vmsim.host.bare import BareFrames
from vmsim.host.memory import HostMemory
from vmsim.host.pool import PagePool, reclaimer
from vmsim.host.scheduler import Scheduler
from vmsim.machine.buddy import State
from vmsim.machine.flush import flush_asid
from vmsim.machine.formats import EPT, NPT, PAGE_SHIFT
from vmsim.machine.layout import Count, make_vm
from vmsim.machine.tlb import ASID_SHIFT
from vmsim.machine.vcpu import run
from vmsim.monitor.tdp import BackingError, Tdp
from vmsim.record.outcome import Ending, Outcome, Transfer, VmOutcome
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.model import Scenario, Vm
from vmsim.units import format_size
from vmsim.vcpu import WAITS, Vcpu
from vmsim.workloads import Stream, open_stream

__all__ = ["Progress", "Simulation", "simulate"]

Process = Generator[simpy.Event, Any, None]
Progress = Callable[[str, int, int], None]

_REASONS = {"ept": "EPT_VIOLATION", "npt": "NPF"}


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What has been counted of a VM up to some moment."""

    time: int
    registers: NDArray[Any]
    cycles: Counter[str]
    waits: Counter[str]
    exits: int
    exit_cycles: int
    latency: Counter[int]
    guest_faults: int


class VirtualMachine:
    """A VM from start to end: registers, vCPU, guest kernel and, unless it runs bare, monitor and page pool."""

    def __init__(self, simulation: Simulation, spec: Vm, stream: Stream, progress: Progress | None) -> None:
        self.simulation = simulation
        self.spec = spec
        self.stream = stream
        self.registers = make_vm()
        self.registers["asid"] = (spec.index + 1) << ASID_SHIFT
        self.registers["levels"] = spec.guest_levels
        self.registers["compute"] = spec.workload.compute
        self.vcpu = Vcpu(
            simulation.env,
            simulation.hardware,
            simulation.scheduler,
            self.registers,
            stream,
            index=spec.index,
            quantum=simulation.scenario.quantum,
            switch_cycles=simulation.scenario.cpu.cost.context_switch,
            progress=(lambda done: progress(spec.name, done, stream.accesses)) if progress else lambda _: None,
            boundary=simulation.boundary,
        )
        self.pool: PagePool | None = None
        self.monitor: Tdp | None = None
        if spec.mode != "native":
            self._add_monitor()
        self.frames: GuestFrames | BareFrames = (
            GuestFrames(spec.pages, self.monitor, owner=spec.index)
            if self.monitor
            else BareFrames(simulation.host, owner=spec.index)
        )
        self.kernel = GuestKernel(
            simulation.hardware.memory,
            simulation.hardware.cores,
            self.registers,
            self.frames,
            page_order=spec.guest_order,
            costs=simulation.scenario.cpu.cost,
        )
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
        BackingError, GuestMemoryError
            The host's memory, or the guest's, does not suffice.
        """
        if self.monitor:
            root = self.simulation.host.take(self.spec.index, 1, State.TABLE)
            if not len(root):
                raise BackingError
            self.monitor.install(int(root[0]))
            self.monitor.populate()
        for _ in self.kernel.boot(self.vcpu):
            raise BackingError  # it would have to wait
        try:
            self.kernel.populate(*self.stream.footprint())
        except GuestMemoryError:
            if self.monitor:
                raise
            raise BackingError from None

    def live(self) -> Process:
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
            warmup = self.simulation.scenario.warmup_accesses(self.stream.accesses)
            pauses = [warmup] if warmup else []
            yield from self.vcpu.replay(self.kernel, self.monitor, pauses, self._warmed)
        except GuestMemoryError:
            self.ending = self._guest_out_of_memory()
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
        first = self._warm or _Snapshot(self.start, make_vm(), Counter(), Counter(), 0, 0, Counter(), 0)
        now, then = last.registers[0], first.registers[0]
        counts = {count.name.lower(): int((now["counters"] - then["counters"])[count]) for count in Count}
        refs = now["refs"] - then["refs"]
        cycles = {cause: last.cycles[cause] - first.cycles[cause] for cause in last.cycles}
        nested = int((refs[:, 1:].sum(axis=(0, 1)) * self.simulation.served_cycles).sum())
        nested += (counts["ntlb_hits"] + counts["ntlb_misses"]) * self.simulation.scenario.cpu.ntlb.cycles
        exits = last.exits - first.exits, last.exit_cycles - first.exit_cycles
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
            exits={_REASONS[self.spec.mode]: exits} if self.monitor else {},
            waits={cause: last.waits[cause] - first.waits[cause] for cause in WAITS},
            fault_latency=dict(sorted((last.latency - first.latency).items())),
            guest_faults=last.guest_faults - first.guest_faults,
            memory=self.memory or self.simulation.host.count(self.spec.index),
        )

    def _add_monitor(self) -> None:
        simulation, spec = self.simulation, self.spec
        costs = simulation.scenario.cpu.cost
        self.pool = PagePool(
            simulation.env,
            simulation.host,
            spec.pool,
            costs,
            owner=spec.index,
            name=spec.name,
            log=simulation.transfers.append,
        )
        self.monitor = Tdp(
            simulation.hardware.memory,
            self.registers,
            simulation.host,
            self.pool,
            NPT if spec.mode == "npt" else EPT(ad_bits=simulation.scenario.cpu.ept_ad),
            owner=spec.index,
            pages=spec.pages,
            levels=spec.host_levels,
            page_order=spec.host_order,
            costs=costs,
        )

    def _warmed(self) -> None:
        """Remember the figures so far: the warm-up ends here."""
        self._warm = self._snapshot()

    def _snapshot(self) -> _Snapshot:
        monitor = self.monitor
        return _Snapshot(
            self.vcpu.now if self.finish is None else self.finish,
            self.registers.copy(),
            self.vcpu.time_by_cause(),
            self.vcpu.waits.copy(),
            monitor.exits if monitor else 0,
            monitor.exit_cycles if monitor else 0,
            monitor.latency.copy() if monitor else Counter(),
            self.kernel.faults,
        )

    def _give_back(self) -> Process:
        """Return all memory to the host; forget what the cores keep of the VM."""
        simulation = self.simulation
        flush_asid(simulation.hardware.cores, int(self.registers["asid"][0]))
        self.gone = True
        if self.pool:
            yield from self.pool.close()
        pages = simulation.host.give_all(self.spec.index)
        simulation.log("return", self.spec.name, pages)

    def _guest_out_of_memory(self) -> Ending:
        made = int(self.registers["counters"][0, Count.ACCESSES])
        message = (
            f"VM {self.spec.name} ran out of its own memory ({format_size(self.spec.memory)}) after {made} of "
            f"{self.stream.accesses} accesses: its kernel asked for a page of {self.spec.guest_page} and had none. "
            f"Give it more memory, or a smaller workload."
        )
        return Ending(self.vcpu.now, self.spec.name, f"a guest page of {self.spec.guest_page}", message)


class Simulation:
    """A host and its VMs, ready to run.

    Parameters
    ----------
    scenario : Scenario
        What to simulate.
    streams : sequence of Stream, optional
        The VMs' workloads in order, in place of those the scenario names.
    hardware : Hardware, optional
        In place of what the scenario's CPU says; its memory must have the host's size.
    check : callable, optional
        Called with the simulation and a description at every boundary (`vmsim.check`).
    progress : callable, optional
        Called with a VM's name, the accesses it has made and all it will make.

    Raises
    ------
    InputError
        A workload cannot be opened.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        streams: Sequence[Stream] | None = None,
        hardware: Hardware | None = None,
        check: Callable[[Simulation, str], None] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.scenario = scenario
        self.check = check
        self.env = Clock()
        frames = scenario.host.memory >> PAGE_SHIFT
        self.hardware = hardware or Hardware.of(
            scenario.cpu, cores=scenario.host.cores, frames=frames, data_caches=scenario.host.data_caches
        )
        cpu = scenario.cpu
        latency = (cpu.cache.l1.cycles, cpu.cache.l2.cycles, cpu.cache.llc.cycles, cpu.memory.cycles)
        self.served_cycles = np.array([*latency, getattr(cpu.pwc, "cycles", 0)])
        self.host = HostMemory(self.env, frames, scenario.watermarks)
        self.scheduler = Scheduler(self.env, scenario.host.cores)
        self.transfers: list[Transfer] = []
        self.vms = [
            VirtualMachine(self, spec, stream, progress)
            for spec, stream in zip(scenario.vms, streams or self._streams(), strict=True)
        ]
        self.env.process(reclaimer(self.env, self.host, [vm.pool for vm in self.vms if vm.pool]))

    def run(self) -> Outcome:
        """Run until every VM has ended, or none can go on."""
        ending = self._populate()
        started = time.perf_counter()
        if ending is None:
            processes = [self.env.process(vm.live()) for vm in self.vms]
            self.env.run(until=None)
            ending = next((vm.ending for vm in self.vms if vm.ending), None)
            if any(process.is_alive for process in processes):
                ending = self._out_of_memory()
        return Outcome(
            vms=[vm.outcome() for vm in self.vms],
            transfers=self.transfers,
            frequency=self.scenario.cpu.frequency,
            latency=tuple(self.served_cycles.tolist()),
            end=self.env.cycle,
            wall_seconds=time.perf_counter() - started,
            ending=ending,
        )

    def boundary(self, where: str) -> None:
        """Check the invariants, if that was asked for."""
        if self.check:
            self.check(self, where)

    def log(self, what: str, vm: str, pages: int) -> None:
        """Note that pages changed hands outside any pool."""
        self.transfers.append(Transfer(self.env.cycle, vm, what, pages, 0, self.host.free))

    def _streams(self) -> list[Stream]:
        scenario = self.scenario
        return [
            open_stream(vm.workload, base=scenario.base, memory=vm.memory, seed=_seed(scenario.seed, vm.index))
            for vm in scenario.vms
        ]

    def _populate(self) -> Ending | None:
        for vm in self.vms:
            if vm.spec.populate != "eager":
                continue
            try:
                vm.populate()
            except BackingError:
                return self._cannot_back(vm)
            except GuestMemoryError:
                return vm._guest_out_of_memory()
        self.boundary("the start")
        return None

    def _cannot_back(self, vm: VirtualMachine) -> Ending:
        size = format_size(vm.spec.memory)
        message = (
            f'VM {vm.spec.name} asked for all its memory ({size}) before the start (populate = "eager"), and the '
            f"host had too little: {self.host.free} of {self.host.size} frames are left. Give the host more memory."
        )
        return Ending(0, vm.spec.name, size, message)

    def _out_of_memory(self) -> Ending:
        """Say who waits for memory that nobody can free."""
        asked = self.host.first_request
        vm = next(vm for vm in self.vms if vm.spec.index == asked.asker)
        milliseconds = self.env.cycle * 1000 / self.scenario.cpu.frequency
        stuck = [each.spec.name for each in self.vms if each.finish is None]
        message = (
            f"The host is out of memory: VM {vm.spec.name} asked for {asked.frames} pages at {milliseconds:.3f} ms "
            f"(cycle {self.env.cycle}), {self.host.free} of {self.host.size} frames are free, "
            f"{self.host.marks.min} of them reserved (min watermark), and no pool has spare pages. "
            f"Suspended for good: {', '.join(stuck)}. Give the host more memory, or the VMs less."
        )
        return Ending(self.env.cycle, vm.spec.name, f"{asked.frames} pages", message)


def _seed(seed: int, index: int) -> int:
    """Return an independent seed for the workload of VM `index`."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


def simulate(scenario: Scenario, *, check: bool = False, progress: Progress | None = None) -> Outcome:
    """Run a scenario.

    Parameters
    ----------
    scenario : Scenario
        What to simulate.
    check : bool, optional
        Check the invariants at every boundary; slow.
    progress : callable, optional
        Called now and then with a VM's name, the accesses it has made and all it will make.

    Returns
    -------
    Outcome
        The figures. If memory ran out, `ending` says whose and why, and the figures are those up to then.

    Raises
    ------
    InputError
        A workload cannot be opened.
    vmsim.check.BrokenInvariant
        `check` was asked for and something that must always hold does not.
    """
    from vmsim.check import check_invariants

    warm(scenario.cpu)
    simulation = Simulation(scenario, check=check_invariants if check else None, progress=progress)
    return simulation.run()


_REHEARSAL = """
[host]
cpu = "yardstick"
memory = "64MiB"
what_if = true
pool = { min = 1, max = 8, batch = 8 }
[[vm]]
name = "nested"
memory = "1MiB"
mode = "ept"
workload = { kind = "sequential", footprint = "64KiB", stride = "4KiB", accesses = 16 }
[[vm]]
name = "bare"
memory = "1MiB"
mode = "native"
workload = { kind = "sequential", footprint = "64KiB", stride = "4KiB", accesses = 16 }
"""


def warm(cpu: Cpu) -> None:
    """Compile every kernel for a CPU's geometry, or load it from the cache, by a run too small to notice."""
    scenario = Scenario.from_toml(_REHEARSAL)
    hardware = Hardware.of(cpu, cores=1, frames=scenario.host.memory >> PAGE_SHIFT)
    rehearsal = Simulation(scenario, hardware=hardware)
    bare = rehearsal.vms[1]
    with _uncollected():
        bare.populate()
        bare.kernel.unmap(bare.vcpu, int(bare.stream.footprint()[0][0]), 1 << PAGE_SHIFT)
        rehearsal.run()


def warm_core(cpu: Cpu) -> None:
    """Compile, or load from the cache, what depends on a CPU's geometry alone: a vCPU's run and all it calls."""
    hardware = Hardware.of(cpu, cores=1, frames=1)
    nothing = [np.zeros(0, dtype) for dtype in (np.int64, np.int32, np.uint8)]
    with _uncollected():
        run(hardware.cores, 0, hardware.llc, make_vm(), hardware.memory, *nothing, 0, 0, 0)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hold the garbage collector: a compiler makes much and drops little, so collecting takes a tenth of its time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
