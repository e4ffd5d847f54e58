"""The monitor of mode prefault."""

from vmsim.machine.formats import EPT
from vmsim.monitor.parts import VmParts
from vmsim.monitor.tdp.monitor import Tdp


def build(parts: VmParts) -> Tdp:
    """Return EPT's monitor, its chunk the window."""
    spec = parts.spec
    return Tdp(
        parts.memory,
        parts.registers,
        parts.host,
        parts.pool,
        EPT(ad_bits=parts.cpu.ept_ad),
        owner=spec.index,
        pages=spec.pages,
        levels=spec.host_levels,
        page_order=spec.host_order,
        costs=parts.cpu.cost,
        chunk=spec.own.pages,
        reason="PREFAULT",
        exited=parts.spaces.exited if spec.tags == "none" else None,
    )
