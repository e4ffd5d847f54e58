"""Accesses of a guest's kernel that the hardware translates: one at a time, at CPL 0, each until it is made."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Exit, Mmu, Monitor, Steps, Stop, VmStopped
from vmsim.engine.hardware import Hardware
from vmsim.engine.vcpu import Vcpu
from vmsim.guest.direct_map import DirectMap, map_base
from vmsim.jit import opaque_core, opaque_llc, opaque_records
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.machine.tags import NOWHERE
from vmsim.machine.vcpu import Reason, enter, prepare
from vmsim.scenario import Vm

__all__ = ["KernelAccesses", "make_direct_map"]

_LONG = 1 << 62  # a budget that no access uses up


class KernelAccesses:
    """Loads and stores of one guest's kernel by its map of all memory.

    Each goes through TLBs, walk caches and the walker as a program's access does, and what these count is the VM's.
    It is no access of the workload. The load or store itself, once translated, is in the kernel's own figures.

    Parameters
    ----------
    hardware : Hardware
        The host's.
    registers : record[n]
        The register files of its vCPUs.
    monitor : Monitor
        Who handles violations and, under a shadow, page faults.
    base : int
        gva of gpa 0 in the map.
    pages : int
        Of guest memory.
    """

    def __init__(self, hardware: Hardware, registers: NDArray[Any], monitor: Monitor, base: int, pages: int) -> None:
        self.hardware = hardware
        self.monitor = monitor
        self.base = base
        self.pages = pages
        self._address = np.zeros(1, np.int64)
        self._count = np.ones(1, np.int32)
        self._kind = np.zeros(1, np.uint8)
        cores = hardware.cores
        self._target = prepare(cores, hardware.llc, registers[:1], hardware.memory)
        self._cores = [opaque_core(cores[number : number + 1]) for number in range(len(cores))]
        self._llcs = [opaque_llc(hardware.llc_of(core)) for core in range(len(cores))]
        self._vms = [opaque_records(registers[number : number + 1]) for number in range(len(registers))]

    def __call__(self, vcpu: Vcpu, gpa: int, write: bool) -> Steps[None]:
        """Make an access to `gpa`; before the clock starts, on no core, nothing is to be translated.

        Raises
        ------
        VmStopped
            There is no guest memory at `gpa`.
        """
        if vcpu.spaces.core == NOWHERE:
            return
        if gpa >> PAGE_SHIFT >= self.pages:
            raise VmStopped(Stop.BEYOND_MEMORY, address=gpa)
        while True:
            if self.monitor.reloads and not self.monitor.may_enter(vcpu):
                yield from self.monitor.reload(vcpu)
                continue
            reason, cycles, fault_gpa, code = self._run(vcpu, self.base + gpa, write)
            vcpu.owed += cycles
            if reason == Reason.DONE:
                return
            if reason == Reason.GUEST_FAULT:
                if (yield from self.monitor.kernel_fault(vcpu, self.base + gpa, gpa >> PAGE_SHIFT, code, write)):
                    return
            else:
                yield from self.monitor.handle(vcpu, Exit(reason, self.base + gpa, fault_gpa, code, 1, write))

    def _run(self, vcpu: Vcpu, gva: int, write: bool) -> tuple[int, int, int, int]:
        """Return (reason, cycles, gpa, code) of one attempt."""
        vcpu.enters()
        self._address[0], self._kind[0] = gva, write
        vcpu.registers["apart"] = vcpu.spaces.kernel_apart
        reason, _, cycles, _, gpa, code = enter(
            self._target,
            self._cores[vcpu.spaces.core],
            self._llcs[vcpu.spaces.core],
            self._vms[vcpu.number],
            self.hardware.memory,
            self._address,
            self._count,
            self._kind,
            0,
            1,
            _LONG,
        )
        vcpu.registers["apart"] = 0
        return reason, cycles, gpa, code


def make_direct_map(
    hardware: Hardware,
    spec: Vm,
    registers: NDArray[Any],
    monitor: Monitor,
    hardware_mmu: Mmu,
) -> DirectMap | None:
    """Return the map of all memory through which a VM's kernel makes its accesses, None if they are not simulated.

    Of what a dirty log protects, the translated stores themselves exit: they need no MMU that tells of them.
    """
    if spec.kernel_accesses == "free":
        return None
    accesses = KernelAccesses(hardware, registers, monitor, map_base(spec.guest_levels), spec.pages)
    largest = int(registers["largest"][0])
    return DirectMap(
        monitor.plain_mmu(hardware_mmu), monitor, accesses, levels=spec.guest_levels, largest=largest, frames=spec.pages
    )
