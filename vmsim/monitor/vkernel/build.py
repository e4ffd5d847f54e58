"""The host's side of a VM in mode vkernel."""

from __future__ import annotations

from vmsim.machine.formats import NPT
from vmsim.machine.layout import make_vm
from vmsim.monitor.parts import VmParts
from vmsim.monitor.tdp.build import nested
from vmsim.monitor.vkernel.monitor import Vkernel

__all__ = ["build"]


def build(parts: VmParts) -> Vkernel:
    """Return the monitor; the tables of the guest's memory are its own, and no hardware walks them."""
    tables = nested(parts, make_vm(), NPT, "EPT_VIOLATION")
    return Vkernel(
        parts.memory, parts.registers, tables, costs=parts.cpu.cost, spaces=parts.spaces, levels=parts.spec.guest_levels
    )
