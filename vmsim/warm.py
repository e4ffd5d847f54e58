"""Compile ahead, or load what is compiled: by a rehearsal too small to notice."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np

from vmsim.guest.kernel import INIT
from vmsim.hardware import Hardware
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.layout import make_vm
from vmsim.machine.vcpu import run
from vmsim.monitor.shadow import Shadow
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
_SHADOW_REHEARSAL = """
[[vm]]
name = "shadowed"
memory = "1MiB"
mode = "shadow"
shadow = { preset = "plex86", fill = "eager" }
workload = { kind = "sequential", footprint = "64KiB", stride = "4KiB", accesses = 16 }
[[vm]]
name = "switching"
memory = "1MiB"
mode = "agile"
workload = { kind = "sequential", footprint = "64KiB", stride = "4KiB", accesses = 16 }
"""


_READY: Final[set[tuple[Cpu, bool]]] = set()


def warm_for(scenario: Scenario) -> None:
    """Compile, once in a process, every kernel that a scenario needs, before its clock starts."""
    shadow = any(vm.mode in ("shadow", "agile") for vm in scenario.vms)
    if (scenario.cpu, shadow) not in _READY:
        warm(scenario.cpu, shadow=shadow)
        _READY.add((scenario.cpu, shadow))


def warm(cpu: Cpu, *, shadow: bool = False) -> None:
    """Compile every kernel for a CPU's geometry, or load it from the cache, by a run too small to notice.

    With `shadow`, those of shadow monitors too, which no geometry changes.
    """
    scenario = Scenario.from_toml(_REHEARSAL + (_SHADOW_REHEARSAL if shadow else ""))
    hardware = Hardware.of(cpu, cores=1, frames=scenario.host.memory >> PAGE_SHIFT)
    rehearsal = Simulation(scenario, hardware=hardware)
    bare = rehearsal.vms[1]
    with _uncollected():
        bare.populate()
        for _ in bare.kernel.unmap(bare.vcpu, INIT, int(bare.stream.footprint()[0][0]), 1 << PAGE_SHIFT):
            raise AssertionError("a bare kernel waits for nothing to unmap")
        for vm in rehearsal.vms:
            if isinstance(vm.monitor, Shadow):
                vm.monitor.rehearse()
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
