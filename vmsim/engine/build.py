"""A VM made from its parts, the host's first: nothing here knows what will run it."""

from __future__ import annotations

from typing import Any, NamedTuple

import simpy
from numpy.typing import NDArray

from vmsim import plugins
from vmsim.base.progress import Progress
from vmsim.base.units import PAGE
from vmsim.contracts import Frames, Mmu, Monitor
from vmsim.engine.copied_tables import copy_tables
from vmsim.engine.crew import Crew
from vmsim.engine.first_touch import place
from vmsim.engine.kernel_accesses import make_direct_map
from vmsim.engine.parts import HostParts
from vmsim.engine.streams import PLACEMENT, seed_of
from vmsim.engine.traced import TracedVcpu
from vmsim.engine.vcpu import Vcpu
from vmsim.engine.vcpu_time import WAITS_FOR_OTHERS
from vmsim.engine.virtual_machine import VirtualMachine
from vmsim.frames.records import State
from vmsim.guest.balloon import BALLOON
from vmsim.guest.compaction import COMPACTION
from vmsim.guest.direct_map import DirectMap
from vmsim.guest.frames import GuestFrames
from vmsim.guest.kernel import GuestKernel
from vmsim.guest.khugepaged import KHUGEPAGED
from vmsim.guest.mmu import HardwareMmu
from vmsim.guest.page_cache import FILES
from vmsim.guest.process import LINUX_PCIDS
from vmsim.guest.reclaim import GUEST_SWAP_WAIT, RECLAIM
from vmsim.guest.virtio_mem import HOTPLUG
from vmsim.host.bare import BareFrames
from vmsim.host.faulted import FaultedPages
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.identity import PageIdentity
from vmsim.host.io import HostIo
from vmsim.host.limits import LIMIT_WAIT, MemoryLimit
from vmsim.host.native_memory import NativeMemory
from vmsim.host.pool import PagePool
from vmsim.host.shootdown import Shootdown
from vmsim.host.supply import Supply
from vmsim.host.swap.swap import SWAP_WAIT
from vmsim.machine.layout import guest_width, make_vm
from vmsim.machine.vm_spaces import VmSpaces
from vmsim.monitor.native.monitor import NativeMonitor
from vmsim.monitor.paired.frames import PairedFrames
from vmsim.monitor.paired.guest import PairedGuest
from vmsim.monitor.paired.process import Halves, PairedMmu, PairedProcess, nested_format
from vmsim.monitor.parts import VmParts
from vmsim.monitor.tdp.build import leave_untagged
from vmsim.scenario import Vm
from vmsim.workloads import Stream

__all__ = ["build_vm"]


class _Memory(NamedTuple):
    """What a VM's memory is made of, as its paging mode has it.

    Attributes
    ----------
    monitor, mmu, frames
        What handles its exits, how its kernel edits page tables, and the frames that the kernel has.
    source : Supply or BareFrames
        Where its memory comes from.
    slot : GuestMemory or None
        Where it lies; None for a program on the host itself.
    pages : GuestMemory or NativeMemory
        What the host can take from it.
    ranges : Ranges or None
        Who else keeps its kernel's ranges.
    kernel_half : DirectMap or None
        Its kernel's map of all its memory, if the hardware walks that.
    """

    monitor: Monitor
    mmu: Mmu
    frames: Frames
    source: Supply | BareFrames
    slot: GuestMemory | None
    pages: GuestMemory | NativeMemory
    ranges: PairedMmu | None = None
    kernel_half: DirectMap | None = None

    @property
    def pool(self) -> Supply | None:
        """The pages of its monitor; None: it has no monitor that needs any."""
        return self.source if isinstance(self.source, Supply) else None


def build_vm(host: HostParts, spec: Vm, stream: Stream, progress: Progress | None) -> VirtualMachine:
    """Return a VM, ready to be populated and to live.

    Parameters
    ----------
    host : HostParts
        What it runs on.
    spec, stream
        What it is, and its workload.
    progress : callable, optional
        Called with its name, the accesses it has made and all it will make.
    """
    cpu = host.scenario.cpu
    first = sum(vm.vcpus for vm in host.scenario.vms[: spec.index])  # number of its first vCPU on the host
    registers = _registers(host, spec)
    spaces = _spaces(host, spec, registers, first)
    touching = place(host.host.zone, spec)
    memory = _process(host, spec, stream, registers, spaces) if spec.bare else _guest(host, spec, registers, spaces)
    monitor, slot = memory.monitor, memory.slot
    limit = _limit(host, spec, memory.source)
    kernel = _kernel(host, spec, stream, memory)
    monitor.attach(kernel)
    _tell_host(spec, memory, kernel)
    every_exit = host.timeline is not None and spec.mode != "native"  # is to be seen; a program has none
    if not host.serve or every_exit or spec.kernel_accesses != "free":
        monitor.compiled = False
    io = HostIo(host.env, host.host, cpu.cost, host.messages, owner=spec.index, slot=slot)

    def start(gfns: NDArray[Any], cycles: int) -> simpy.Event:
        """Have a device work; a VM's pages are pinned by its host, on its monitor's behalf."""
        return io.start(gfns, cycles, find=monitor.frames_of) if monitor.pins_pages else host.env.timeout(cycles)

    told = (lambda done: progress(spec.name, done, stream.accesses)) if progress else lambda _: None
    crew = Crew(host.env, min(stream.threads, spec.vcpus), told)
    shootdown = Shootdown(cpu, bare=spec.bare or spec.mode == "vkernel", pv_flush=spec.pv_flush)
    causes = _causes(host, spec)
    vcpus = [
        (Vcpu if host.timeline is None else TracedVcpu)(
            host.env,
            host.hardware,
            host.schedulers[spec.placement.node_of(number, spec.vcpus) if spec.placement else 0],
            registers[number : number + 1],
            stream,
            spaces=spaces[number],
            number=number,
            index=first + number,
            crew=crew,
            shootdown=shootdown,
            quantum=host.scenario.quantum,
            horizon=host.scenario.horizon,
            switch_cycles=cpu.cost.context_switch,
            device=lambda gfns, nanoseconds: start(gfns, nanoseconds * cpu.frequency // 10**9),
            causes=causes,
        )
        for number in range(spec.vcpus)
    ]
    crew.vcpus = vcpus
    if touching:
        touching.follow(vcpus, memory.source)
    tables = copy_tables(host, spec, vcpus)
    if tables:
        monitor.compiled = False  # what it maps is to be copied before the vCPU goes on
    for vcpu in vcpus:
        if isinstance(vcpu, TracedVcpu) and host.timeline is not None:
            vcpu.trace(host.timeline, spec.name)
    made = VirtualMachine(
        host,
        spec,
        stream,
        registers,
        spaces=spaces,
        io=io,
        pool=memory.pool,
        monitor=monitor,
        frames=memory.frames,
        kernel=kernel,
        vcpus=vcpus,
        crew=crew,
        shootdown=shootdown,
        slot=slot,
        pages=memory.pages,
        limit=limit,
        start=start,
    )
    if tables:
        tables.register(made.ledger)
    return made


def _registers(host: HostParts, spec: Vm) -> NDArray[Any]:
    """Return the register files of a VM's vCPUs (record[n])."""
    registers = make_vm(spec.walked_levels, spec.vcpus)
    registers["levels"] = 2 if spec.pdpte_registers else spec.walked_levels
    registers["largest"] = 3 if host.scenario.pages_1g else 2
    registers["compute"] = spec.workload.compute
    if host.scenario.host.overlap and not spec.workload.dependent:
        registers["in_flight"] = max(1, int(host.scenario.cpu.window / spec.workload.instructions))
    if spec.llc_ways:
        registers["llc_ways"] = spec.llc_ways
    return registers


def _spaces(host: HostParts, spec: Vm, registers: NDArray[Any], first: int) -> VmSpaces:
    """Return how TLBs tell a VM's address spaces apart; `first` is the number of its first vCPU on the host."""
    return VmSpaces(
        [
            host.tags.spaces(
                registers[number : number + 1],
                first + number,
                tags=None if spec.bare else spec.tags,
                apart=spec.paging.apart if spec.pcid else None,
                kernel=None if spec.kernel_accesses == "free" else "own" if spec.paging.apart == "tag" else "global",
                nested=first + number if host.scenario.cpu.vendor == "amd" else first,
            )
            for number in range(spec.vcpus)
        ]
    )


def _process(host: HostParts, spec: Vm, stream: Stream, registers: NDArray[Any], spaces: VmSpaces) -> _Memory:
    """Return the memory of a program on the host itself."""
    words = host.hardware.memory
    bare = BareFrames(host.host, owner=spec.index, most=spec.pages)
    hardware = HardwareMmu(words, guest_width(registers))
    if spec.mode == "paired":
        monitor, mmu, frames = _paired_process(host, spec, stream, registers, spaces, hardware, bare)
        pages = NativeMemory(bare, words, levels=spec.guest_levels, seconds=mmu)
        return _Memory(monitor, mmu, frames, bare, None, pages, ranges=mmu)
    pages = NativeMemory(bare, words, levels=spec.guest_levels, seconds=None)
    return _Memory(NativeMonitor(words), hardware, bare, bare, None, pages)


def _guest(host: HostParts, spec: Vm, registers: NDArray[Any], spaces: VmSpaces) -> _Memory:
    """Return the memory of a VM, with its monitor."""
    words, cpu = host.hardware.memory, host.scenario.cpu
    pool = _supply(host, spec)
    slot = GuestMemory(host.host, words, owner=spec.index, pages=spec.pages)
    of_host = host.host, pool, spaces, slot, host.paired, host.scenario.horizon
    parts = VmParts(spec, cpu, words, registers, *of_host)
    slot.second = monitor = plugins.resolve(spec.paging.build)(parts)
    hardware = HardwareMmu(words, guest_width(registers), monitor)
    direct_map = make_direct_map(host.hardware, spec, registers, monitor, hardware)
    frames = GuestFrames(spec.pages, direct_map or monitor, owner=spec.index, host=monitor)
    seed = seed_of(host.scenario.seed, spec.index, PLACEMENT)
    boot = spec.virtio_mem.first if spec.virtio_mem else 0  # what is plugged later has held nothing yet
    frames.age(span=spec.table_span // PAGE, share=spec.fragmentation, seed=seed, limit=boot)
    mmu = direct_map or monitor.guest_mmu(hardware)
    return _Memory(monitor, mmu, frames, pool, slot, slot, kernel_half=direct_map)


def _limit(host: HostParts, spec: Vm, source: Supply | BareFrames) -> MemoryLimit | None:
    """Return what a VM's host lets it have, where it says so; where its memory comes from is told."""
    if not (spec.memory_high or spec.memory_max):
        return None
    limit = MemoryLimit(
        host.env,
        host.host,
        owner=spec.index,
        high=spec.memory_high,
        most=spec.memory_max,
        frequency=host.scenario.cpu.frequency,
    )
    host.host.limits[spec.index] = source.limit = limit
    return limit


def _kernel(host: HostParts, spec: Vm, stream: Stream, memory: _Memory) -> GuestKernel:
    """Return a VM's kernel."""
    return GuestKernel(
        host.hardware.memory,
        memory.mmu,
        memory.frames,
        levels=spec.guest_levels,
        pcids=spec.paging.spaces or (LINUX_PCIDS if spec.pcid else 0),
        page_order=spec.guest_order,
        costs=host.scenario.cpu.cost,
        ranges=memory.ranges,
        kernel_half=memory.kernel_half,
        cpus=spec.vcpus,
        zero_page=getattr(stream, "from_start", False),
        thp=spec.thp,
    )


def _tell_host(spec: Vm, memory: _Memory, kernel: GuestKernel) -> None:
    """Have the host's side of a VM's memory know what it can of the kernel in it."""
    pages, slot = memory.pages, memory.slot
    pages.identity = PageIdentity(
        kernel.memory,
        memory.mmu.backing,
        memory.frames.frames,
        levels=spec.guest_levels,
        owner=spec.index,
        content=spec.content,
        late=lambda: memory.monitor.late_flags,
    )
    if slot:
        slot.collapses = spec.host_thp
        slot.logged = spec.dirty_log.method != "none"
        slot.states = states = kernel.frames.frames["state"]
        slot.holds_table = lambda gfn: bool(states[gfn] == State.TABLE)
    elif isinstance(pages, NativeMemory):
        pages.sharing = kernel.sharing
        pages.able = lambda: not kernel.editing
        pages.spaces = lambda: {id(each.space): each.space for each in kernel.processes.values()}.values()
        pages.hold_back, pages.told, pages.watched = kernel.hold_back, kernel.swap_to, kernel.watch
        pages.roots = lambda: [each.space.root for each in kernel.processes.values() if each.space.root >= 0]


def _causes(host: HostParts, spec: Vm) -> tuple[str, ...]:
    """Return what a VM's cycles can be due to beside what every VM's can."""
    causes: tuple[str, ...] = WAITS_FOR_OTHERS if spec.vcpus > 1 else ()
    causes += ((BALLOON,) if spec.balloon else ()) + ((SWAP_WAIT,) if "swap" in host.scenario.daemons else ())
    causes += (HOTPLUG,) if spec.virtio_mem else ()
    causes += (LIMIT_WAIT,) if spec.memory_high or spec.memory_max else ()
    causes += (FILES,) if spec.files else ()
    causes += (KHUGEPAGED, COMPACTION) if spec.thp and spec.thp.works else ()
    causes += (RECLAIM, GUEST_SWAP_WAIT) if spec.reclaim else ()
    return causes


def _supply(host: HostParts, spec: Vm) -> Supply:
    """Return where a monitor has its pages from."""
    given = host.env, host.host, spec.pool, host.scenario.cpu.cost
    whose: dict[str, Any] = {"owner": spec.index, "name": spec.name}
    whose |= {"log": host.transfers.append, "messages": host.messages}
    made: Supply
    if spec.pool.supply == "grant":
        made = PagePool(*given, **whose, refills=host.policy(spec.pool.refill, spec.name))
    else:
        made = FaultedPages(*given, **whose)
    made.shares = spec.shares
    return made


def _paired_process(
    host: HostParts,
    spec: Vm,
    stream: Stream,
    registers: NDArray[Any],
    spaces: VmSpaces,
    hardware: Mmu,
    frames: BareFrames,
) -> tuple[PairedProcess, PairedMmu, PairedFrames]:
    """Return the monitor, MMU and frames of a process of a paired kernel that is no VM, or not yet."""
    assert host.paired is not None
    form, reason = nested_format(host.scenario.cpu, spec.own.layout)
    tables = Halves(host.paired, spec.own.layout, owner=spec.index, levels=spec.guest_levels)
    known = spec.own.guest_at is None and spec.own.layout != "pointer"
    mmu = PairedMmu(hardware, tables, form, owner=spec.index, flush_nested=spaces.flush_nested, known=known)
    monitor = PairedProcess(mmu)
    if spec.own.guest_at is not None:
        monitor = PairedGuest(
            spec.name,
            mmu,
            registers,
            enter=lambda: spaces.become(spec.tags or "none"),
            levels=spec.guest_levels,
            reason=reason,
            costs=host.scenario.cpu.cost,
            at=spec.own.guest_at,
            regions=stream.footprint(),
            exited=leave_untagged,
        )
    return monitor, mmu, PairedFrames(frames, tables)
