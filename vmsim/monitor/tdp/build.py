"""Monitors of two-dimensional paging, and the nested tables that other modes keep too."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from vmsim.contracts import Vcpu
from vmsim.machine.formats import EPT, NPT
from vmsim.monitor.features.dirty_log import DirtyLog
from vmsim.monitor.features.nx_split import NxSplit
from vmsim.monitor.mmu_lock import MmuLock
from vmsim.monitor.parts import VmParts
from vmsim.monitor.tdp.monitor import Tdp

__all__ = ["ept", "leave_untagged", "nested", "npt"]


def ept(parts: VmParts) -> Tdp:
    """Return the monitor of a VM under EPT; with dirty logging, flags come where the method needs them."""
    ad_bits = parts.cpu.ept_ad or parts.spec.dirty_log.method in ("ad-scan", "pml")
    return _with_features(
        parts,
        nested(parts, parts.registers, EPT(ad_bits=ad_bits), "EPT_VIOLATION", parts.lock(shared=parts.spec.tdp_mmu)),
    )


def npt(parts: VmParts) -> Tdp:
    """Return the monitor of a VM under NPT."""
    return _with_features(parts, nested(parts, parts.registers, NPT, "NPF", parts.lock(shared=parts.spec.tdp_mmu)))


def _with_features(parts: VmParts, tables: Tdp) -> Tdp:
    """Add what a scenario asks for besides."""
    spec, spaces = parts.spec, parts.spaces
    if spec.dirty_log.method != "none":  # asked first: it empties the processor's log at every exit
        tables.add(DirtyLog(tables, spec.dirty_log, spaces.flush_nested))
    if spec.nx_split:
        tables.add(NxSplit(tables, spec.nx_split, spaces.flush_nested))
    return tables


def leave_untagged(vcpu: Vcpu) -> None:
    """Have a processor without tags forget translations at a VM exit (SDM vol. 3C §30.4.3.1, APM vol. 2 §15.16)."""
    vcpu.spaces.exited()


def nested(parts: VmParts, registers: NDArray[Any], form: Any, reason: str, lock: MmuLock | None = None) -> Tdp:
    """Return what keeps a VM's nested tables.

    Parameters
    ----------
    parts : VmParts
    registers : record[1]
        Registers that the tables' root is loaded into: the VM's, or others where hardware does not walk them.
    form : object
        Their format (`vmsim.machine.formats`).
    reason : str
        What its exits are called.
    lock : MmuLock, optional
        That of what its vCPUs share.
    """
    spec = parts.spec
    return Tdp(
        parts.memory,
        registers,
        parts.host,
        parts.pool,
        form,
        parts.slot,
        owner=spec.index,
        levels=spec.host_levels,
        page_order=spec.host_order,
        costs=parts.cpu.cost,
        chunk=spec.fill_chunk,
        reason=reason,
        exited=leave_untagged if spec.tags == "none" else None,
        lock=lock,
    )
