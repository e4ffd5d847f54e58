"""What the VMs of a host share, as they are given it; and a VM, as the drivers of its kernel are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.base.clock import Clock
from vmsim.base.ledger import Ledger
from vmsim.contracts import Flush, Frames, Monitor, Observe, Vcpu
from vmsim.engine.hardware import Hardware
from vmsim.engine.idle import IdleVcpu
from vmsim.guest.kernel import GuestKernel
from vmsim.host.daemons.compaction import Compaction
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.memory import HostMemory
from vmsim.host.scheduler import Scheduler
from vmsim.host.shootdown import Shootdown
from vmsim.host.table_copies import NoCopies, TableCopies
from vmsim.machine.tags import Tags
from vmsim.monitor.paired.layout import PairedHost
from vmsim.record.log import Log
from vmsim.record.messages import MessageLog
from vmsim.record.outcome import Transfer
from vmsim.record.timeline import Span
from vmsim.scenario import Scenario, Vm

__all__ = ["HostParts", "VmWithDrivers"]


@dataclass(frozen=True, slots=True)
class HostParts:
    """The host, as far as a VM knows it.

    Attributes
    ----------
    env : Clock
        Simulated time.
    scenario : Scenario
        What is simulated.
    hardware : Hardware
        Cores, caches and memory.
    host : HostMemory
        Who has which frame.
    tags : Tags
        How processors tell address spaces apart.
    schedulers : sequence of Scheduler
        Who runs on which core, one for each node with CPUs.
    paired : PairedHost or None
        What processes with paired tables share.
    transfers, messages
        Where pages that change hands, and messages between monitors and the host, are noted.
    observe : callable
        Told of each moment.
    serve : bool
        Compiled code may handle what nobody has to wait for.
    policy : callable
        Returns a policy by its name, for whoever uses it.
    served_cycles : int64[5]
        What a reference costs by where it hits (`machine.caches.Served`).
    compaction : Compaction
        Of the host's memory.
    timeline : Log of Span or None
        Where vCPUs note what they do when, if anybody wants to know.
    copies : TableCopies or NoCopies
        Tables that have copies on several nodes.
    """

    env: Clock
    scenario: Scenario
    hardware: Hardware
    host: HostMemory
    tags: Tags
    schedulers: Sequence[Scheduler]
    paired: PairedHost | None
    transfers: Log[Transfer]
    messages: MessageLog
    observe: Observe
    serve: bool
    served_cycles: NDArray[np.int64]
    policy: Callable[[str, str], Any]
    compaction: Compaction
    timeline: Log[Span] | None
    copies: TableCopies | NoCopies

    def log(self, what: str, vm: str, pages: int, *, level: int = 0) -> None:
        """Note that pages changed hands outside any pool; `level` is what a balloon has afterwards."""
        self.transfers.append(Transfer(self.env.cycle, vm, what, pages, level, self.host.free))


class VmWithDrivers(Protocol):
    """A VM, as the drivers of its kernel are given it; the attributes are those of `VirtualMachine`."""

    parts: HostParts
    spec: Vm
    monitor: Monitor
    frames: Frames
    kernel: GuestKernel
    slot: GuestMemory | None
    shootdown: Shootdown
    ledger: Ledger

    @property
    def vcpus(self) -> Sequence[IdleVcpu]:
        """All its vCPUs."""
        ...

    def forget(self, flush: Flush, by: Vcpu | None = None, *, times: int = 1) -> int:
        """Have its processors forget what a flush says, as `LiveVm` does."""
        ...
