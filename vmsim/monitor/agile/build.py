"""The monitor of a VM in mode agile."""

from __future__ import annotations

from vmsim.machine.formats import EPT, NPT
from vmsim.monitor.agile.mode import Moving
from vmsim.monitor.agile.monitor import Agile
from vmsim.monitor.parts import VmParts
from vmsim.monitor.tdp.build import nested

__all__ = ["build"]


def build(parts: VmParts) -> Agile:
    """Return the monitor; its nested tables have the format of the CPU's vendor."""
    own: Moving = parts.spec.own
    amd = parts.cpu.vendor == "amd"
    form, reason = (NPT, "NPF") if amd else (EPT(ad_bits=False), "EPT_VIOLATION")
    agile = Agile(
        parts.memory,
        parts.registers,
        nested(parts, parts.registers, form, reason, parts.lock()),
        spec=own.spec,
        interval=own.interval,
        limit=own.limit,
        chunk=parts.spec.fill_chunk,
        costs=parts.cpu.cost,
        spaces=parts.spaces,
        levels=parts.spec.guest_levels,
        log=parts.spec.dirty_log if parts.spec.dirty_log.method != "none" else None,
    )
    if parts.spec.nx_split:
        agile.forbid_execution(parts.spec.nx_split)
    return agile
