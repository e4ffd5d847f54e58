"""Compile ahead, or load what is compiled: by a rehearsal too small to notice."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from vmsim.guest.kernel import INIT
from vmsim.hardware import Hardware
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.layout import make_vm
from vmsim.machine.vcpu import prepare
from vmsim.monitor.software import SoftwareMonitor
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.model import Scenario
from vmsim.simulation import Simulation

__all__ = ["warm", "warm_core", "warm_for"]

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
_SOFTWARE = ("shadow", "agile", "vkernel")
_SOFTWARE_REHEARSAL = """
[[vm]]
name = "by-{0}"
memory = "1MiB"
mode = "{0}"
shadow = {{ preset = "plex86", fill = "eager" }}
workload = {{ kind = "sequential", footprint = "64KiB", stride = "4KiB", accesses = 16 }}
"""


_READY: Final[set[tuple[Cpu, tuple[str, ...]]]] = set()


def warm_for(scenario: Scenario) -> None:
    """Compile, once in a process, every kernel that a scenario needs, before its clock starts."""
    software = tuple(mode for mode in _SOFTWARE if any(vm.mode == mode for vm in scenario.vms))
    if (scenario.cpu, software) not in _READY:
        warm(scenario.cpu, software=software)
        _READY.add((scenario.cpu, software))


def warm(cpu: Cpu, *, software: Sequence[str] = ()) -> None:
    """Compile every kernel for a CPU's geometry, or load it from the cache, by a run too small to notice.

    With modes in `software` (shadow, agile, vkernel), those of their monitors too, which no geometry changes.
    """
    scenario = Scenario.from_toml(_REHEARSAL + "".join(_SOFTWARE_REHEARSAL.format(mode) for mode in software))
    hardware = Hardware.of(cpu, cores=1, frames=scenario.host.memory >> PAGE_SHIFT)
    rehearsal = Simulation(scenario, hardware=hardware)
    bare = rehearsal.vms[1]
    with _uncollected():
        bare.populate()
        for _ in bare.kernel.unmap(bare.vcpu, INIT, int(bare.stream.footprint()[0][0]), 1 << PAGE_SHIFT):
            raise AssertionError("a bare kernel waits for nothing to unmap")
        for vm in rehearsal.vms:
            if isinstance(vm.monitor, SoftwareMonitor):
                vm.monitor.rehearse()
        rehearsal.run()


def warm_core(cpu: Cpu) -> None:
    """Compile, or load from the cache, what depends on a CPU's geometry alone: a vCPU's run and all it calls."""
    hardware = Hardware.of(cpu, cores=1, frames=1)
    with _uncollected():
        prepare(hardware.cores, hardware.llc, make_vm(), hardware.memory)


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
