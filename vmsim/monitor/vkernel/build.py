"""The host's side of a VM in mode vkernel."""

from __future__ import annotations

from vmsim.monitor.parts import VmParts, host_pages
from vmsim.monitor.vkernel.monitor import Vkernel

__all__ = ["build"]


def build(parts: VmParts) -> Vkernel:
    """Return the monitor."""
    pages, levels = host_pages(parts), parts.spec.guest_levels
    return Vkernel(parts.memory, parts.registers, pages, costs=parts.cpu.cost, spaces=parts.spaces, levels=levels)
