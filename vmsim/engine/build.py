"""The monitor of a VM, and the MMU of its kernel, by its paging mode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmsim import plugins
from vmsim.guest.mmu import HardwareMmu, LoggedMmu
from vmsim.host.pool import PagePool
from vmsim.machine.tags import Spaces
from vmsim.monitor.features.dirty_log import LoggedTdp
from vmsim.monitor.parts import VmParts
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
    hardware, host, shared = simulation.hardware, simulation.host, simulation.paired
    parts = VmParts(spec, simulation.scenario.cpu, hardware.memory, registers, host, pool, spaces, shared)
    monitor: Tdp | Shadow | Vkernel = plugins.resolve(spec.paging.build)(parts)
    return monitor


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
