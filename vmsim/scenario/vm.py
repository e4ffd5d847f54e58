"""What a scenario says of one VM, and of the host's watermarks, with nothing left to look up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vmsim.base.units import PAGE, PAGE_ORDER, PageSize
from vmsim.scenario.balloon import BalloonSpec
from vmsim.scenario.bilateral import BilateralSpec
from vmsim.scenario.content import Content
from vmsim.scenario.dirty_log import DirtyLogSpec
from vmsim.scenario.files import FilesSpec
from vmsim.scenario.guest_reclaim import GuestReclaimSpec
from vmsim.scenario.keys import Pool
from vmsim.scenario.modes import PagingMode, mode_named
from vmsim.scenario.names import Mode
from vmsim.scenario.nodes import Placement
from vmsim.scenario.nx_split import NxSplitSpec
from vmsim.scenario.thp import ThpSpec
from vmsim.scenario.virtio_mem import VirtioMemSpec
from vmsim.scenario.workload import Workload

__all__ = ["Marks", "Vm"]


class Marks(NamedTuple):
    """Host watermarks in pages of 4 KiB."""

    min: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Vm:
    """One VM, with nothing left to look up.

    Attributes
    ----------
    name : str
        Unique in the scenario.
    index : int
        Position among all VMs, from 0.
    group : str
        Name of the ``[[vm]]`` table that it comes from.
    memory : int
        Bytes of guest-physical memory.
    tags : str or None
        What tells its TLB entries from others'; None in modes native and vkernel, which enter and leave none.
    pcid : bool
        Its kernel (in mode vkernel the host's) keeps address spaces apart in the TLB by PCID.
    vcpus : int
        Its processors.
    cpu_weight : int
        Its share of contended pCPUs, beside those of the other VMs.
    cpu_cap : int
        The most pCPU time that it gets, in percent of one; 0: no limit.
    llc_ways : int
        A mask of the ways of the LLC that it may fill; 0: all.
    pv_flush : bool
        Its kernel does not wait for those that do not run to flush.
    tdp_mmu : bool
        Its faults under EPT and NPT take the lock of the nested tables to read.
    start : int
        Cycle at which it starts.
    stop : int or None
        Cycle at which it is stopped; None: at the end of its workload.
    pool : Pool
        The page pool of its monitor.
    shares : int
        How much of what is shared out by shares is its.
    table_span : int
        Bytes of its memory over which the free pages for its page tables are scattered before it starts.
    fragmentation : float
        Share of its free memory that is in single pages before it starts.
    fill_chunk : int
        Mappings that the monitor brings in at a fault.
    kernel_accesses : str
        Whether the hardware translates what its kernel loads and stores.
    memory_high, memory_max : int
        Pages above which its host slows it down, and that it cannot have more than; 0: no limit.
    placement : Placement or None
        Where it runs and its memory lies; None: the host has no nodes.
    content : Content
        What its pages hold.
    balloon : BalloonSpec or None
        What its host asks it to give back; None: it has no such device.
    virtio_mem : VirtioMemSpec or None
        Its memory that can be plugged and unplugged; None: there is none.
    bilateral : BilateralSpec or None
        What its host takes from its kernel's allocator itself; None: they do not share its state.
    files : FilesSpec or None
        Its disk and its kernel's page cache; None: its programs read and write no files.
    thp : ThpSpec or None
        What its kernel is told of huge pages; None: it makes none by itself.
    host_thp : bool
        Its host backs it with huge pages where it can, and makes more of them later.
    reclaim : GuestReclaimSpec or None
        What its kernel does when it is short of memory; None: it ends.
    dirty_log : DirtyLogSpec
        How it is learnt which pages are written to.
    nx_split : NxSplitSpec or None
        When large pages that were split for a fetch are recovered; None: they are executable.
    own : object
        What its paging mode makes of the tables it brings (`PagingMode.settings`).
    bare : bool
        No guest runs in it from the start: a program on the host itself.
    becomes_guest : bool
        It is a process that becomes a VM while it runs.
    """

    name: str
    index: int
    group: str
    memory: int
    mode: Mode
    guest_page: PageSize
    host_page: PageSize
    populate: Literal["lazy", "eager"]
    guest_levels: int
    host_levels: int
    tags: Literal["none", "vpid", "asid"] | None
    pcid: bool
    kernel_accesses: Literal["free", "direct-map"]
    table_span: int
    fragmentation: float
    fill_chunk: int
    vcpus: int
    cpu_weight: int
    cpu_cap: int
    llc_ways: int
    pv_flush: bool
    tdp_mmu: bool
    start: int
    stop: int | None
    pool: Pool
    shares: int
    memory_high: int
    memory_max: int
    placement: Placement | None
    content: Content
    balloon: BalloonSpec | None
    virtio_mem: VirtioMemSpec | None
    bilateral: BilateralSpec | None
    files: FilesSpec | None
    thp: ThpSpec | None
    host_thp: bool
    reclaim: GuestReclaimSpec | None
    dirty_log: DirtyLogSpec
    nx_split: NxSplitSpec | None
    own: Any
    bare: bool
    becomes_guest: bool
    workload: Workload

    @property
    def pooled(self) -> bool:
        """Whether its monitor has a pool."""
        return not self.bare and self.pool.supply == "grant"

    @property
    def gives_memory(self) -> bool:
        """Whether its host can have memory back that it gave, by some device or by what they share."""
        return bool(self.balloon or self.virtio_mem or self.bilateral)

    @property
    def paging(self) -> PagingMode:
        """Its paging mode."""
        return mode_named(self.mode)

    @property
    def pdpte_registers(self) -> bool:
        """Whether the processor keeps the PDPTEs of the PAE tables that it walks in registers.

        A load of CR3 fills them (Intel SDM vol. 3A §5.4.1, vol. 3C §28.3.1 under EPT); with AMD's nested paging walks
        read them from memory (APM vol. 2 §15.25).
        """
        return self.walked_levels == 3 and self.paging.pdpte_registers

    @property
    def walked_levels(self) -> int:
        """Levels of the tables that the processor walks: the guest's own, or a monitor's in their place."""
        return self.paging.walked_levels(self.guest_levels)

    @property
    def guest_order(self) -> int:
        """Order of the largest pages that its kernel maps: 0, 9, 10 or 18."""
        if self.thp:
            return 10 if self.guest_levels == 2 else 9
        return PAGE_ORDER[self.guest_page]

    @property
    def host_order(self) -> int:
        """Order of the largest pages that it is backed with: 0, 9, 10 or 18."""
        return 9 if self.host_thp else PAGE_ORDER[self.host_page]

    @property
    def pages(self) -> int:
        """Guest-physical memory in pages of 4 KiB."""
        return self.memory // PAGE
