"""What the rooms of vmsim ask of one another: guests, monitors and the host import this, and not each other.

Each Protocol stands here once. A class that keeps one need not name it.
"""

from __future__ import annotations

from vmsim.contracts.balloon import BalloonDevice, PageHints, Statistics
from vmsim.contracts.bilateral import SharedAllocator
from vmsim.contracts.disk import Disk, PageObserver
from vmsim.contracts.host import (
    Daemon,
    DaemonHost,
    Found,
    FrameRequest,
    MemoryGovernor,
    PageLists,
    Refills,
    Reserve,
    SharedHost,
    SharingVm,
    Spares,
    SparesHost,
    Victims,
)
from vmsim.contracts.memory import Backer, Frames, Host, KernelHalf, PagePrices, Pool, ensure
from vmsim.contracts.monitor import Handler, Kernel, LiveVm, Monitor, Worker
from vmsim.contracts.processor import Mmu, Spaces, Vcpu
from vmsim.contracts.reclaim import Compacts, MakesRoom, ScannedLists, SwappedOut
from vmsim.contracts.second import NO_FLUSH, Flush, Leaf, MapsCached, MemorySlot, SecondMmu, SwapPlace
from vmsim.contracts.steps import NEVER, NONE, Exit, Moment, Observe, Observer, Resume, Steps, Stop, VmStopped, Words
from vmsim.contracts.virtio_mem import MemoryDevice

__all__ = [
    "NEVER",
    "NONE",
    "NO_FLUSH",
    "Backer",
    "BalloonDevice",
    "Compacts",
    "Daemon",
    "DaemonHost",
    "Disk",
    "Exit",
    "Flush",
    "Found",
    "FrameRequest",
    "Frames",
    "Handler",
    "Host",
    "Kernel",
    "KernelHalf",
    "Leaf",
    "LiveVm",
    "MakesRoom",
    "MapsCached",
    "MemoryDevice",
    "MemoryGovernor",
    "MemorySlot",
    "Mmu",
    "Moment",
    "Monitor",
    "Observe",
    "Observer",
    "PageHints",
    "PageLists",
    "PageObserver",
    "PagePrices",
    "Pool",
    "Refills",
    "Reserve",
    "Resume",
    "ScannedLists",
    "SecondMmu",
    "SharedAllocator",
    "SharedHost",
    "SharingVm",
    "Spaces",
    "Spares",
    "SparesHost",
    "Statistics",
    "Steps",
    "Stop",
    "SwapPlace",
    "SwappedOut",
    "Vcpu",
    "Victims",
    "VmStopped",
    "Words",
    "Worker",
    "ensure",
]
