"""The monitor of a VM in mode shadow."""

from __future__ import annotations

from vmsim.machine.formats import EPT
from vmsim.machine.layout import make_vm
from vmsim.monitor.mmu_lock import MmuLock
from vmsim.monitor.parts import VmParts
from vmsim.monitor.shadow.mode import Shadowing
from vmsim.monitor.shadow.monitor import Shadow
from vmsim.monitor.tdp.build import nested

__all__ = ["build"]


def build(parts: VmParts) -> Shadow:
    """Return the monitor; the tables of guest memory are its own, and no hardware walks them."""
    own: Shadowing = parts.spec.own
    return Shadow(
        parts.memory,
        parts.registers,
        nested(parts, make_vm(), EPT(ad_bits=parts.cpu.ept_ad), "EPT_VIOLATION", MmuLock(parts.spec.vcpus)),
        spec=own.spec,
        chunk=parts.spec.fill_chunk,
        entries=own.entries,
        costs=parts.cpu.cost,
        spaces=parts.spaces,
        levels=parts.spec.guest_levels,
        log=parts.spec.dirty_log if parts.spec.dirty_log.method != "none" else None,
    )
