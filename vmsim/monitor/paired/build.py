"""The monitor of a VM in mode paired."""

from __future__ import annotations

from vmsim.monitor.paired.monitor import Paired
from vmsim.monitor.paired.process import nested_format
from vmsim.monitor.parts import VmParts
from vmsim.monitor.tdp.build import leave_untagged

__all__ = ["build"]


def build(parts: VmParts) -> Paired:
    """Return the monitor; `VmParts.shared` is the `PairedHost`."""
    spec = parts.spec
    form, reason = nested_format(parts.cpu, spec.own.layout)
    return Paired(
        parts.shared,
        parts.registers,
        parts.pool,
        form,
        parts.slot,
        layout=spec.own.layout,
        owner=spec.index,
        levels=spec.host_levels,
        page_order=spec.host_order,
        costs=parts.cpu.cost,
        chunk=spec.fill_chunk,
        reason=reason,
        exited=leave_untagged if spec.tags == "none" else None,
    )
