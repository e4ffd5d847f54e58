"""Compile ahead, or load what is compiled: by a rehearsal too small to notice."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from vmsim.engine.hardware import Hardware
from vmsim.engine.simulation import Simulation
from vmsim.guest.kernel import INIT
from vmsim.machine.formats import PAGE_SHIFT, TWO_LEVEL
from vmsim.machine.layout import make_vm
from vmsim.machine.vcpu import prepare
from vmsim.monitor.base import SoftwareMonitor
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.model import Scenario

__all__ = ["HARDWARE", "SOFTWARE", "warm", "warm_core", "warm_for"]

HARDWARE: Final = ("ept", "native")  # modes that between them use all that no software monitor does
SOFTWARE: Final = ("shadow", "agile", "vkernel")

_HOST = """
[host]
cpu = "yardstick"
memory = "64MiB"
what_if = true
pool = { min = 1, max = 8, batch = 8 }
"""
_VM = """
[[vm]]
name = "{0}"
memory = "1MiB"
mode = "{1}"
workload = {{ kind = "sequential", base = "0x1000_0000", footprint = "64KiB", stride = "4KiB", accesses = 16 }}
"""
_EAGER = 'shadow = { preset = "plex86", fill = "eager" }\n'
_TWO_LEVEL = _VM.format("two-level", "ept") + "guest_levels = 2\n"
_READY: Final[set[tuple[Cpu, tuple[str, ...], bool]]] = set()


def warm_for(scenario: Scenario) -> None:
    """Compile, once in a process, every kernel that a scenario needs, before its clock starts."""
    software = tuple(mode for mode in SOFTWARE if any(vm.mode == mode for vm in scenario.vms))
    two_level = any(vm.guest_levels == TWO_LEVEL for vm in scenario.vms)
    if (scenario.cpu, software, two_level) not in _READY:
        warm(scenario.cpu, HARDWARE + software, two_level=two_level)
        _READY.add((scenario.cpu, software, two_level))


def warm(cpu: Cpu, modes: Sequence[str] = HARDWARE, *, two_level: bool = False) -> None:
    """Compile every kernel for a CPU, or load it from the cache, by a run too small to notice.

    Parameters
    ----------
    cpu : Cpu
        Whose geometry to compile for.
    modes : sequence of str, optional
        Of HARDWARE and SOFTWARE.
    two_level : bool, optional
        For guests in 32-bit paging too, whose entries are read by code of their own.
    """
    vms = (_VM.format(f"by-{mode}", mode) + (_EAGER if mode == "shadow" else "") for mode in modes)
    scenario = Scenario.from_toml(_HOST + "".join(vms) + (_TWO_LEVEL if two_level else ""))
    hardware = Hardware.of(cpu, cores=1, frames=scenario.host.memory >> PAGE_SHIFT)
    rehearsal = Simulation(scenario, hardware=hardware)
    with _uncollected():
        for vm in rehearsal.vms:
            if isinstance(vm.monitor, SoftwareMonitor):
                vm.monitor.rehearse()
            elif vm.monitor is None:
                vm.populate()
                for _ in vm.kernel.unmap(vm.vcpu, INIT, int(vm.stream.footprint()[0][0]), 1 << PAGE_SHIFT):
                    raise AssertionError("a bare kernel waits for nothing to unmap")
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
