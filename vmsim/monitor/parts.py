"""What a VM's monitor is made of: `PagingMode.build` names a function that is given this and returns the monitor."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from vmsim.contracts import Host, MemorySlot, Pool, Words
from vmsim.machine.vm_spaces import VmSpaces
from vmsim.monitor.backing.pages import HostPages
from vmsim.monitor.mmu_lock import MmuLock
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.vm import Vm

__all__ = ["VmParts", "host_pages"]


class VmParts(NamedTuple):
    """A VM that has no monitor yet.

    Attributes
    ----------
    spec : Vm
        What the scenario says of it; `Vm.own` is what its mode made of its tables.
    cpu : Cpu
        Of the host.
    memory : int64[words]
        Physical memory.
    registers : record[n]
        The register files of its vCPUs (`vmsim.machine.layout.make_vm`).
    host : Host
        Who has which frame.
    pool : Pool
        The monitor's pages.
    spaces : VmSpaces
        The address spaces of its vCPUs in the TLBs.
    slot : MemorySlot
        Where its memory lies.
    shared : object
        What the VMs of its mode share on this host; None: nothing.
    horizon : int
        Cycles that a vCPU may run ahead of others.
    """

    spec: Vm
    cpu: Cpu
    memory: Words
    registers: NDArray[Any]
    host: Host
    pool: Pool
    spaces: VmSpaces
    slot: MemorySlot
    shared: Any = None
    horizon: int = 0

    def lock(self, *, shared: bool = False) -> MmuLock:
        """Return the lock of what the VM's vCPUs share; `shared`: faults take it to read."""
        spec, transfer = self.spec, self.cpu.cost.line_transfer
        finds = spec.pool.supply == "fault"
        return MmuLock(spec.vcpus, shared=shared, transfer=transfer, finds=finds, horizon=self.horizon)


def host_pages(parts: VmParts, lock: MmuLock | None = None) -> HostPages:
    """Return the pages of a VM whose monitor has no tables from gpas to hpas; `lock` is that of its MMU."""
    spec = parts.spec
    return HostPages(
        parts.memory,
        parts.host,
        parts.pool,
        parts.slot,
        owner=spec.index,
        page_order=spec.host_order,
        costs=parts.cpu.cost,
        chunk=spec.fill_chunk,
        lock=lock,
    )
