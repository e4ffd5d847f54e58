"""The monitor of a VM in mode shadow."""

from __future__ import annotations

from vmsim.monitor.parts import VmParts, host_pages
from vmsim.monitor.shadow.mode import Shadowing
from vmsim.monitor.shadow.monitor import Shadow

__all__ = ["build"]


def build(parts: VmParts) -> Shadow:
    """Return the monitor."""
    own: Shadowing = parts.spec.own
    shadow = Shadow(
        parts.memory,
        parts.registers,
        host_pages(parts, parts.lock()),
        spec=own.spec,
        chunk=parts.spec.fill_chunk,
        entries=own.entries,
        costs=parts.cpu.cost,
        spaces=parts.spaces,
        levels=parts.spec.guest_levels,
        log=parts.spec.dirty_log if parts.spec.dirty_log.method != "none" else None,
    )
    if parts.spec.nx_split:
        shadow.forbid_execution(parts.spec.nx_split)
    return shadow
