"""The monitor of a VM, and the MMU of its kernel, by its paging mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmsim.guest.mmu import HardwareMmu, LoggedMmu
from vmsim.host.pool import PagePool
from vmsim.machine.formats import EPT, NPT
from vmsim.machine.layout import make_vm
from vmsim.machine.tags import Spaces
from vmsim.monitor.agile.monitor import Agile
from vmsim.monitor.features.dirty_log import LoggedTdp
from vmsim.monitor.features.nx_split import NxSplitTdp
from vmsim.monitor.paired.monitor import Paired
from vmsim.monitor.paired.process import nested_format
from vmsim.monitor.shadow.monitor import Shadow
from vmsim.monitor.tdp.monitor import Tdp
from vmsim.monitor.vkernel.monitor import Vkernel
from vmsim.scenario import Vm
from vmsim.tables.backing import HOST

if TYPE_CHECKING:
    from vmsim.engine.simulation import Simulation

__all__ = ["make_mmu", "make_monitor"]


def make_monitor(
    simulation: Simulation, spec: Vm, registers: NDArray[Any], spaces: Spaces, pool: PagePool
) -> Tdp | Shadow | Vkernel:
    """Return what handles the exits of a VM that is no bare program.

    Parameters
    ----------
    simulation : Simulation
        Whose host it is on.
    spec : Vm
        The VM.
    registers : record[1]
        Its register file.
    spaces, pool
        Its address spaces and its page pool.
    """
    cpu, memory = simulation.scenario.cpu, simulation.hardware.memory
    exited = spaces.exited if spec.tags == "none" else None
    if simulation.paired and spec.mode == "paired":
        form, reason = nested_format(cpu, spec.own.layout)
        return Paired(
            simulation.paired,
            registers,
            pool,
            form,
            layout=spec.own.layout,
            flush=spaces.flush_nested,
            owner=spec.index,
            pages=spec.pages,
            levels=spec.host_levels,
            page_order=spec.host_order,
            costs=cpu.cost,
            chunk=spec.fill_chunk,
            reason=reason,
            exited=exited,
        )
    kind: type[Tdp] = Tdp
    more: dict[str, Any] = {}
    if spec.dirty_log.method != "none":
        kind, more = LoggedTdp, {"spec": spec.dirty_log, "flush": spaces.flush_nested}
    elif spec.nx_split:
        kind, more = NxSplitTdp, {"spec": spec.nx_split, "flush": spaces.flush_nested}
    flags = cpu.ept_ad or spec.dirty_log.method in ("ad-scan", "pml")  # they come with these
    npt = spec.mode == "npt" or (spec.mode == "agile" and cpu.vendor == "amd")
    tables = kind(
        memory,
        make_vm() if spec.mode in ("shadow", "vkernel") else registers,
        simulation.host,
        pool,
        NPT if npt or spec.mode == "vkernel" else EPT(ad_bits=flags and spec.mode != "agile"),
        owner=spec.index,
        pages=spec.pages,
        levels=spec.host_levels,
        page_order=spec.host_order,
        costs=cpu.cost,
        chunk=spec.fill_chunk,
        reason="NPF" if npt else "EPT_VIOLATION",
        exited=exited,
        **more,
    )
    if spec.mode == "shadow":
        return Shadow(
            memory,
            registers,
            tables,
            spec=spec.own.spec,
            chunk=spec.fill_chunk,
            entries=spec.own.entries,
            costs=cpu.cost,
            spaces=spaces,
        )
    if spec.mode == "agile":
        return Agile(
            memory,
            registers,
            tables,
            spec=spec.own.spec,
            interval=spec.own.interval,
            limit=spec.own.limit,
            chunk=spec.fill_chunk,
            costs=cpu.cost,
            spaces=spaces,
        )
    if spec.mode == "vkernel":
        return Vkernel(memory, registers, tables, costs=cpu.cost, spaces=spaces)
    return tables


def make_mmu(
    memory: NDArray[np.int64], registers: NDArray[Any], spaces: Spaces, monitor: Tdp | Shadow | Vkernel | None
) -> HardwareMmu | Shadow | Vkernel:
    """Return what a guest kernel's loads, stores and flushes do, once they are translated."""
    if isinstance(monitor, Shadow | Vkernel):
        return monitor
    backing = HOST if monitor is None else monitor.backing
    if isinstance(monitor, LoggedTdp):
        return LoggedMmu(memory, spaces, registers, backing, wrote=monitor.wrote)
    return HardwareMmu(memory, spaces, registers, backing)
