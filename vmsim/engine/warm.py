"""Compile ahead, or load what is compiled: by a rehearsal too small to notice."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from vmsim.engine.hardware import Hardware
from vmsim.engine.simulation import Simulation
from vmsim.guest.kernel import INIT
from vmsim.machine.formats import PAGE_SHIFT, TWO_LEVEL
from vmsim.machine.layout import make_vm
from vmsim.machine.vcpu import prepare
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.model import Scenario
from vmsim.scenario.modes import mode_named, paging_modes

__all__ = ["HARDWARE", "rehearsed_modes", "warm", "warm_core", "warm_for"]

HARDWARE: Final = ("ept", "native")  # modes that between them use all that no mode has for itself

_HOST: Final = {
    "cpu": "yardstick",
    "memory": "64MiB",
    "what_if": True,
    "pool": {"min": 1, "max": 8, "batch": 8},
}
_WORKLOAD: Final = {
    "kind": "sequential",
    "base": "0x1000_0000",
    "footprint": "64KiB",
    "stride": "4KiB",
    "accesses": 16,
}
_READY: Final[set[tuple[Cpu, tuple[str, ...], bool]]] = set()


def rehearsed_modes() -> tuple[str, ...]:
    """Return the names of the modes that have compiled code of their own."""
    return tuple(name for name, mode in paging_modes().items() if mode.rehearsal is not None)


def warm_for(scenario: Scenario) -> None:
    """Compile, once in a process, every kernel that a scenario needs, before its clock starts."""
    used = {vm.mode for vm in scenario.vms}
    software = tuple(mode for mode in rehearsed_modes() if mode in used)
    two_level = any(vm.walked_levels == TWO_LEVEL for vm in scenario.vms)
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
        Of HARDWARE and `rehearsed_modes`.
    two_level : bool, optional
        For guests in 32-bit paging too, whose entries are read by code of their own.
    """
    vms = [_small(f"by-{mode}", mode, mode_named(mode).rehearsal or {}) for mode in modes]
    if two_level:
        vms.append(_small("two-level", "ept", {"guest_levels": 2}))
    scenario = Scenario.from_tables({"host": _HOST, "vm": vms})
    hardware = Hardware.of(cpu, cores=1, frames=scenario.host.memory >> PAGE_SHIFT)
    rehearsal = Simulation(scenario, hardware=hardware)
    with _uncollected():
        for vm in rehearsal.vms:
            vm.monitor.rehearse()
            if vm.spec.bare:
                vm.populate()
                for _ in vm.kernel.unmap(vm.vcpu, INIT, int(vm.stream.footprint()[0][0]), 1 << PAGE_SHIFT):
                    raise AssertionError("a bare kernel waits for nothing to unmap")
        rehearsal.run()


def _small(name: str, mode: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of a VM too small to notice."""
    return {"name": name, "memory": "1MiB", "mode": mode, "workload": _WORKLOAD, **keys}


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
