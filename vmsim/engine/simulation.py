"""A host and its VMs wired together, and run to their end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
import simpy

from vmsim import plugins
from vmsim.base.clock import Clock
from vmsim.base.errors import InputError
from vmsim.base.progress import Progress
from vmsim.base.units import PAGE, format_size
from vmsim.contracts import Moment, Observer, Stop, VmStopped
from vmsim.engine.bandwidth import Bandwidth
from vmsim.engine.build import build_vm
from vmsim.engine.endings import ending_of, together
from vmsim.engine.hardware import Hardware
from vmsim.engine.nodes import copied_vms, copies_of, count_nodes, nodes_of, schedulers_of
from vmsim.engine.parts import HostParts
from vmsim.engine.resident import check_memory
from vmsim.engine.samples import Samples
from vmsim.engine.streams import PLACEMENT, check_reach, seed_of, streams_of
from vmsim.engine.traced import traced_daemon
from vmsim.engine.virtual_machine import VirtualMachine
from vmsim.frames.uptime import scatter_tables
from vmsim.host.daemons.compaction import Compaction
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.fragmentation import PageCache, fragment
from vmsim.host.killer import OomKiller
from vmsim.host.memory import HOST, HostMemory
from vmsim.host.pool import reclaimer
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.tags import Tags
from vmsim.monitor.paired.layout import PairedHost
from vmsim.record.messages import MessageLog
from vmsim.record.outcome import Ending, Outcome, transfer_log
from vmsim.record.timeline import span_log
from vmsim.scenario import Scenario
from vmsim.scenario.daemons import host_daemons, policies
from vmsim.scenario.share import share_of
from vmsim.scenario.types import MAX_VMS
from vmsim.scenario.vm import Vm
from vmsim.workloads import Stream

__all__ = ["Simulation"]


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
    observers : sequence of Observer, optional
        Who looks at each moment, in this order: `vmsim.engine.check.host.check_invariants` for one.
    progress : callable, optional
        Called with a VM's name, the accesses it has made and all it will make.
    serve : bool, optional
        Have compiled code handle the faults for which nothing has to wait: the same figures, sooner.
    timeline : bool, optional
        Note what vCPUs, cores and daemons do when. No fault of a VM is handled by compiled code then.

    Raises
    ------
    InputError
        A workload cannot be opened, or this machine has too little memory.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        streams: Sequence[Stream] | None = None,
        hardware: Hardware | None = None,
        observers: Sequence[Observer] = (),
        progress: Progress | None = None,
        serve: bool = True,
        timeline: bool = False,
    ) -> None:
        check_memory(scenario)
        self.scenario = scenario
        self.observers = observers
        self.env = Clock()
        frames = scenario.host.memory >> PAGE_SHIFT
        self.hardware = hardware or Hardware.of(
            scenario.cpu,
            cores=scenario.host.cores,
            frames=frames,
            data_caches=scenario.host.data_caches,
            llc_shared=any(vm.llc_ways for vm in scenario.vms),
            seed=scenario.seed,
            nodes=scenario.host.nodes,
            remote_cycles=scenario.host.remote_cycles or 0,
            distances=scenario.host.distances,
            copies=copied_vms(scenario),
        )
        cpu = scenario.cpu
        latency = (cpu.cache.l1.cycles, cpu.cache.l2.cycles, cpu.cache.llc.cycles, cpu.memory.cycles)
        self.served_cycles = np.array([*latency, getattr(cpu.pwc, "cycles", 0)])
        self.tags = Tags(self.hardware.cores, limit=cpu.tlb.tags, amd=cpu.vendor == "amd")
        self.host = HostMemory(self.env, frames, scenario.watermarks, nodes_of(scenario))
        self.copies = copies_of(scenario, self.hardware, self.host)
        self.compaction = Compaction(self.host, self.observe)
        self.paired = self._paired()
        if span := scenario.host.table_span // PAGE:
            source = np.random.PCG64(seed_of(scenario.seed, MAX_VMS, PLACEMENT))
            scatter_tables(self.host.zone, self.host.frames, HOST, span, source)
        self.page_cache = self._page_cache()
        self.schedulers = schedulers_of(self.env, scenario)
        self.transfers = transfer_log()
        self.messages = MessageLog()
        self.timeline = span_log() if timeline else None
        parts = HostParts(
            self.env,
            scenario,
            self.hardware,
            self.host,
            self.tags,
            self.schedulers,
            self.paired,
            self.transfers,
            self.messages,
            self.observe,
            serve,
            self.served_cycles,
            self._policy,
            self.compaction,
            self.timeline,
            self.copies,
        )
        self.vms = []
        self.daemons: dict[str, Any] = {}
        for spec, stream in zip(scenario.vms, streams or streams_of(scenario), strict=True):
            check_reach(spec, stream)
            _check_warmup(scenario, spec, stream)
            _check_guest_at(spec, stream)
            self.vms.append(build_vm(parts, spec, stream, progress))
            count_nodes(self.vms[-1].ledger, self.vms[-1].registers, len(scenario.host.nodes))
            if pages := (vm := self.vms[-1]).pages:
                self.compaction.add(pages, vm.forget)
            if progress:
                progress(spec.name, 0, stream.accesses)
        spares = self._policy(scenario.host.spares, "spares")
        self.env.process(reclaimer(self.env, self.host, [vm.pool for vm in self.vms if vm.pool], spares))

        swaps = "swap" in scenario.daemons
        whom = scenario.host.oom or ("largest" if swaps else "none")
        self.host.killer = OomKiller(self.host, self.vms, whom, cpu.frequency)
        for vm in self.vms if whom != "none" and not swaps else ():  # else kswapd's figures have it
            vm.ledger.counters("oom", lambda: {"killed": self.host.killer.killed})
        if any(node.bandwidth for node in scenario.host.nodes):
            self.env.process(Bandwidth(self.env, scenario, self.hardware.cores, self.host, self.vms).run())
        every = scenario.host.samples.cycles(cpu.frequency)
        self.samples = Samples(self.env, self.host, self.vms, every) if every else None

    def run(self) -> Outcome:
        """Run until every VM has ended, or none can go on.

        Raises
        ------
        InputError
            Something goes on for longer than can be counted.
        """
        try:
            return self._run_to_the_end()
        except OverflowError as error:
            spent = self.env.cycle / self.scenario.cpu.frequency
            raise InputError(
                f"the simulation has reached {spent:,.0f} s (cycle {self.env.cycle:,}), and times or their sums are "
                "more than 2**63 - 1 cycles, the most that can be counted. Expected shorter times, or fewer of them."
            ) from error

    def _run_to_the_end(self) -> Outcome:
        ending = self._populate()
        started = time.perf_counter()
        if ending is None:
            processes = [self.env.process(vm.live()) for vm in self.vms]
            self._start_daemons()
            stuck = not self._run(processes)
            ending = together([vm.ending for vm in self.vms], self._out_of_memory() if stuck else None)
        return Outcome(
            vms=[vm.outcome() for vm in self.vms],
            transfers=self.transfers,
            messages=self.messages,
            frequency=self.scenario.cpu.frequency,
            latency=tuple(self.served_cycles.tolist()),
            end=self.env.cycle,
            wall_seconds=time.perf_counter() - started,
            ending=ending,
            samples=self.samples.logs if self.samples else {},
            timeline=self.timeline,
        )

    def _run(self, processes: Sequence[simpy.Process]) -> bool:
        """Run until all VMs have ended, or nobody who is left can go on; return whether they have.

        Who is stuck waits for memory, which a daemon may free at its next turn: each has another one while any does.
        """
        env = self.env
        over = env.all_of(processes)
        env.run()
        while not over.triggered:
            before = self.host.freed
            env.turn(over)
            env.run()
            if self.host.freed == before:
                break
        return over.triggered

    def _start_daemons(self) -> None:
        """Start the daemons that the scenario asks for."""
        for name in self.scenario.daemons:
            build = plugins.resolve(host_daemons()[name].build)
            daemon = self.daemons[name] = build(self._daemon_parts(name, name))
            if register := getattr(daemon, "register", None):
                register(self.vms)
            steps = daemon.run(self)
            if self.timeline is not None:
                steps = traced_daemon(steps, self.env, self.timeline, name)
            self.env.process(steps)

    def _daemon_parts(self, name: str, daemon: str) -> DaemonParts:
        """Return what a daemon, or a policy of one, is made of."""
        scenario = self.scenario
        seed = seed_of(scenario.seed, MAX_VMS + 1 + crc32(daemon.encode()))

        def policy(name: str) -> Any:
            return self._policy(name, daemon)

        return DaemonParts(
            scenario.host.part(name), scenario.cpu.frequency, seed, policy, scenario.cpu.cost, scenario.folder
        )

    def _policy(self, name: str, whose: str) -> Any:
        """Return a policy by its name; what it draws depends on who uses it."""
        return plugins.resolve(policies()[name].build)(self._daemon_parts(name, whose))

    def observe(self, what: Moment, vm: VirtualMachine | None = None) -> None:
        """Have everybody look who wants to."""
        for observer in self.observers:
            observer(what, self, vm)

    def _paired(self) -> PairedHost | None:
        """Return what the paired processes share, if there are any."""
        layouts = {vm.own.layout for vm in self.scenario.vms if vm.mode == "paired"}
        if not layouts:
            return None
        memory, cpu = self.hardware.memory, self.scenario.cpu
        return PairedHost(memory, self.host, cpu, compaction=self.compaction, pointers="pointer" in layouts)

    def _page_cache(self) -> PageCache | None:
        """Return what fragments the host's memory, if anything does."""
        share, seed = self.scenario.host.fragmentation, seed_of(self.scenario.seed, MAX_VMS)
        if not share:
            return None
        cache = fragment(self.host, self.hardware.memory, share, seed=seed)
        self.compaction.add(cache, lambda _: 0)
        return cache

    def _populate(self) -> Ending | None:
        for vm in self.vms:
            if vm.spec.populate != "eager":
                continue
            try:
                vm.populate()
            except VmStopped as stop:
                return ending_of(vm, stop) if stop.what is Stop.OUT_OF_MEMORY else self._cannot_back(vm)
        self.observe(Moment.STARTED)
        return None

    def _cannot_back(self, vm: VirtualMachine) -> Ending:
        size = format_size(vm.spec.memory)
        message = (
            f'VM {vm.spec.name} asked for all its memory ({size}) before the start (populate = "eager"), and the '
            f"host had too little: {self.host.free} of {self.host.size} frames are left{self._kept()}. "
            f"Give the host more memory."
        )
        return Ending(0, vm.spec.name, size, message)

    def _kept(self) -> str:
        """Say how many frames fragmentation keeps from the VMs."""
        cache = self.page_cache
        return f", {len(cache.pages)} are the page cache's (host.fragmentation)" if cache else ""

    def _out_of_memory(self) -> Ending:
        """Say who waits for memory that nobody can free."""
        asked = self.host.first_request
        vm = next(vm for vm in self.vms if vm.spec.index == asked.asker)
        milliseconds = self.env.cycle * 1000 / self.scenario.cpu.frequency
        stuck = [each.spec.name for each in self.vms if each.finish is None]
        message = (
            f"The host is out of memory: VM {vm.spec.name} asked for {asked.frames} pages at {milliseconds:.3f} ms "
            f"(cycle {self.env.cycle}), {self.host.free} of {self.host.size} frames are free, "
            f"{self.host.marks.min} of them reserved (min watermark){self._kept()}, and no pool has spare pages. "
            f"Suspended for good: {', '.join(stuck)}. Give the host more memory, or the VMs less."
        )
        return Ending(self.env.cycle, vm.spec.name, f"{asked.frames} pages", message)


def _check_warmup(scenario: Scenario, spec: Vm, stream: Stream) -> None:
    """Refuse a warm-up after which nothing is left to measure."""
    made = stream.accesses
    if scenario.warmup_accesses(made) >= made > 0:
        raise InputError(
            f"warmup: found {scenario.warmup}, and the workload of VM {spec.name} makes {made} accesses: nothing would "
            f'be left to measure. Expected fewer than {made} accesses, or a share of them such as "10%".'
        )


def _check_guest_at(spec: Vm, stream: Stream) -> None:
    """Refuse a process that would become a VM when its workload has ended, or before its first access."""
    if not spec.becomes_guest or not stream.accesses:
        return
    at, made = spec.own.guest_at, stream.accesses
    if not 0 < share_of(at, made) < made:
        if made == 1:
            raise InputError(
                f"VM {spec.name}: paired.guest_at = {at!r}, and its workload makes one access: it cannot become a VM "
                f"between two. Expected a workload of 2 accesses or more, or no guest_at."
            )
        raise InputError(
            f"VM {spec.name}: paired.guest_at = {at!r} is no moment between the first and the last of the {made} "
            f"accesses of its workload, so it would never become a VM while it runs. Expected 1 to {made - 1}, or a "
            f'share such as "50%".'
        )
