"""The keys that every ``[[vm]]`` table has, whatever its paging mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, Strict, model_validator

from vmsim.base.units import parse_duration
from vmsim.scenario.balloon import Balloon
from vmsim.scenario.bilateral import Bilateral
from vmsim.scenario.content import Content
from vmsim.scenario.dirty_log import DirtyLog
from vmsim.scenario.files import Files
from vmsim.scenario.guest_reclaim import GuestReclaim
from vmsim.scenario.llc_ways import LlcWays
from vmsim.scenario.names import WantedMode
from vmsim.scenario.nodes import Numa
from vmsim.scenario.problems import Problem, raise_problems
from vmsim.scenario.schedule import SizeOrNone
from vmsim.scenario.thp import GuestThp
from vmsim.scenario.types import (
    MAX_VCPUS,
    DurationField,
    Flag,
    Fraction01,
    Model,
    Pages,
    PageSizeField,
    Size,
    SomePages,
    Vms,
)
from vmsim.scenario.uptime import TABLE_SPAN
from vmsim.scenario.virtio_mem import VirtioMem
from vmsim.scenario.workload import Workload

__all__ = ["WEIGHT", "Pool", "PoolOverride", "VmKeys"]

WEIGHT: Final = 256
"""Of a VM that says nothing of it: Xen's CSCHED_DEFAULT_WEIGHT."""

NO_POOL: Final = 'it has no effect with pool.supply = "fault", which has no pool; leave it out'

_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"
_Table = TypeVar("_Table", bound=Model)


_OF_POOL: Final = ("min", "max", "batch", "refill")


class Pool(Model):
    """Where a monitor has its pages from, of 4 KiB."""

    supply: Literal["grant", "fault"] = Field(
        default="grant",
        description="grant: the host fills a pool, batch by batch. fault: there is none, and the host allocates each "
        "page in a page fault of its own, in the exit, as KVM's does.",
    )
    min: Pages = Field(default=64, description="Free pages under which the host must refill the pool.")
    max: SomePages = Field(default=1024, description="Free pages over which the host may take the spare ones.")
    batch: SomePages = Field(default=256, description="Pages of one refill.")
    refill: str = Field(
        default="batch",
        description="When the host refills the pool, and with how many pages. batch: always as many, under the "
        "minimum. proportional: a part of what lacks of the maximum. predictive: ahead, by how fast pages are taken.",
    )

    @model_validator(mode="after")
    def _check(self) -> Pool:
        if self.min > self.max:
            text = f"pool.min > pool.max ({self.min} > {self.max}); a pool needs min ≤ max"
            raise_problems([Problem(("min",), text)])
        if self.supply == "fault":
            changed = [key for key in _OF_POOL if getattr(self, key) != type(self).model_fields[key].default]
            raise_problems(Problem((key,), NO_POOL) for key in changed)
        return self


class PoolOverride(Model):
    """What differs from ``[host.pool]`` for the monitor of one VM."""

    supply: Literal["grant", "fault"] | None = None
    min: Pages | None = None
    max: SomePages | None = None
    batch: SomePages | None = None
    refill: str | None = None

    def over(self, pool: Pool) -> Pool:
        """Return `pool` with what is given here in place of its own."""
        return pool.model_copy(update=self.model_dump(exclude_none=True))

    def problems_over(self, pool: Pool) -> Iterator[Problem]:
        """Yield what is wrong with it in place of what `pool` says."""
        merged = self.over(pool)
        if merged.supply == "fault":
            yield from (Problem((key,), NO_POOL) for key in _OF_POOL if getattr(self, key) is not None)
        elif merged.min > merged.max:
            text = f"pool.min > pool.max ({merged.min} > {merged.max}, with what host.pool says)"
            yield Problem((), text)


class VmKeys(Model):
    """What every ``[[vm]]`` table has: without the tables in it that paging modes bring, its workload of any kind.

    `vmsim.scenario.tables.VmGroup` has both, of what is registered. Modes and workloads can be imported without it.
    """

    name: str = Field(
        default="vm", pattern=_NAME, description="Letters, digits, - and _; VMs of a group get -0, -1, … after it."
    )
    count: Vms = Field(default=1, description="VMs of this kind; 0 leaves them out.")
    memory: Size = Field(default=256 << 20, description="Guest-physical memory.")
    mode: WantedMode = Field(
        default="auto",
        description="How addresses are translated. auto: npt or ept, as the CPU has them, else shadow or vkernel.",
    )
    vcpus: Annotated[int, Strict(), Field(ge=1, le=MAX_VCPUS)] = Field(
        default=1, description="Its processors: the threads of its workload run on them."
    )
    cpu_weight: Annotated[int, Strict(), Field(ge=1, le=10_000)] | None = Field(
        default=None, description="Its share of contended pCPUs, beside those of the other VMs. Default: 256."
    )
    cpu_cap: Annotated[int, Strict(), Field(ge=0, le=100 * MAX_VCPUS)] = Field(
        default=0, description="The most pCPU time that it gets, in percent of one; 0: no limit (credit only)."
    )
    llc_ways: LlcWays | None = None
    pv_flush: Flag = Field(
        default=False,
        description="Its kernel does not wait for vCPUs that do not run to flush: they do when they are entered.",
    )
    tdp_mmu: Flag = Field(
        default=True, description="Faults of its vCPUs do not wait for each other's, as with the TDP MMU of KVM."
    )
    guest_page: PageSizeField = Field(default="4K", description="Page size that the guest kernel maps with.")
    host_page: PageSizeField = Field(default="4K", description="Page size that the monitor backs guest memory with.")
    populate: Literal["lazy", "eager"] = Field(
        default="lazy", description="lazy: one fault for each page. eager: backed before the clock starts."
    )
    guest_levels: Literal[2, 3, 4, 5] = Field(
        default=4, description="Depth of the guest's page tables; 3: PAE, 2: 32-bit paging, of pages of 4K and 4M."
    )
    host_levels: Literal[2, 3, 4, 5] = Field(
        default=4, description="Depth of the nested page tables; 3: PAE, 2: 32-bit paging, both npt only."
    )
    tags: Literal["none", "vpid", "asid"] | None = Field(
        default=None, description="What tells its TLB entries from others'. Default: vpid on Intel CPUs, asid on AMD's."
    )
    pcid: Flag | None = Field(
        default=None,
        description="Its kernel keeps address spaces apart in the TLB by PCID; in mode vkernel, the host's does. "
        "Default: true, and in mode vkernel false.",
    )
    table_span: SizeOrNone = Field(default=0, description=TABLE_SPAN)
    fragmentation: Fraction01 = Field(
        default=0.0,
        description="Share of its free memory that is in single pages when it starts, 0 to 1; its kernel has the pages "
        "in between.",
    )
    start: DurationField = Field(
        default=parse_duration("0s"), description="When the VM starts.", json_schema_extra={"default": "0s"}
    )
    stop: DurationField | None = Field(
        default=None, description="When the VM is stopped, as by its owner; default: at the end of its workload."
    )
    fill_chunk: Annotated[int, Strict(), Field(ge=1, le=512)] = Field(
        default=1, description="Mappings that the monitor brings in at a fault, 1 to 512."
    )
    kernel_accesses: Literal["free", "direct-map"] = Field(
        default="free",
        description="Loads and stores of page-table entries and clearing of frames by the guest's kernel. free: not "
        "translated. direct-map: translated by the hardware, as a kernel does through its map of all memory.",
    )
    pool: PoolOverride | None = Field(default=None, description="What differs from host.pool.")
    shares: Annotated[int, Strict(), Field(ge=1, le=1_000_000)] = Field(
        default=1000, description="How much of what is shared out by shares is its, in proportion to other VMs'."
    )
    memory_high: Size | None = Field(
        default=None,
        description="What the host lets it have before its vCPUs are slowed down: pages are taken from it first, and "
        "where that does not help whoever asks for more sleeps (memory.high of a cgroup). Default: no limit.",
    )
    memory_max: Size | None = Field(
        default=None,
        description="What the host lets it have: pages are taken from it before it gets others, and if there are none "
        "to take it is ended (memory.max). Default: no limit.",
    )
    numa: Numa = Field(default=Numa(), description=Numa.about)
    content: Content = Field(default=Content(), description=Content.about)
    balloon: Balloon = Field(default=Balloon(), description=Balloon.about)
    virtio_mem: VirtioMem = Field(default=VirtioMem(), description=VirtioMem.about)
    bilateral: Bilateral = Field(default=Bilateral(), description=Bilateral.about)
    files: Files = Field(default=Files(), description=Files.about)
    thp: GuestThp = Field(default=GuestThp(), description=GuestThp.about)
    reclaim: GuestReclaim = Field(default=GuestReclaim(), description=GuestReclaim.about)
    dirty_log: DirtyLog = Field(default=DirtyLog(), description="How the host learns which pages are written to.")
    nx_split: Flag = Field(
        default=False, description="Large host pages are not executable, and split where code is fetched."
    )
    nx_recovery_period: DurationField = Field(
        default=parse_duration("60s"),
        description="How often some of the pages split so are put together again.",
        json_schema_extra={"default": "60s"},
    )
    nx_recovery_ratio: Annotated[int, Strict(), Field(ge=0, lt=1 << 32)] = Field(
        default=60, description="Of those, one in so many at a time; 0: never."
    )
    workload: Workload = Field(description="What the VM runs.")

    def table(self, kind: type[_Table]) -> _Table:
        """Return the table of a class that a paging mode has registered.

        Raises
        ------
        KeyError
            No registered mode brings it.
        """
        found: list[Any] = [value for _, value in self if isinstance(value, kind)]
        if not found:
            raise KeyError(kind.__name__)
        return found[0]  # type: ignore[no-any-return]

    def names(self) -> list[str]:
        """Return the names of the group's VMs."""
        return [self.name] if self.count == 1 else [f"{self.name}-{number}" for number in range(self.count)]
