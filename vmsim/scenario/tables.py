"""The tables of a scenario file as they are written: ``[host]``, ``[host.pool]``, ``[[vm]]``, ..."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, Strict, WithJsonSchema, model_validator

from vmsim.base.errors import InputError
from vmsim.base.units import PAGE, PAGE_BYTES, format_size, is_canonical, parse_duration
from vmsim.scenario.agile import AgileSpec
from vmsim.scenario.cpu import Mode
from vmsim.scenario.cpu_files import Override, nested
from vmsim.scenario.dirty_log import DirtyLog
from vmsim.scenario.idle import idle_problems
from vmsim.scenario.levels import PROGRAMS_END, level_problems
from vmsim.scenario.paired import Paired, bare, becomes_guest
from vmsim.scenario.problems import Problem, raise_problems
from vmsim.scenario.shadow import ShadowTable, SoftwareTlb
from vmsim.scenario.share import parse_share, share_schema
from vmsim.scenario.types import (
    Cores,
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
from vmsim.scenario.workload import Generator, Workload

__all__ = [
    "MAX_MEMORY",
    "Host",
    "Pool",
    "PoolOverride",
    "VmGroup",
    "Watermarks",
]

MAX_MEMORY: Final = 4 << 40
_NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"
_WARMUP_HELP: Final = 'write a share below 100 % such as "10%", or a number of accesses of each VM, at most 10**12'


class Pool(Model):
    """The page pool of a monitor, in pages of 4 KiB."""

    min: Pages = Field(default=64, description="Free pages under which the host must refill the pool.")
    max: SomePages = Field(default=1024, description="Free pages over which the host may take the spare ones.")
    batch: SomePages = Field(default=256, description="Pages of one refill.")

    @model_validator(mode="after")
    def _check(self) -> Pool:
        if self.min > self.max:
            text = f"pool.min > pool.max ({self.min} > {self.max}); a pool needs min ≤ max"
            raise_problems([Problem(("min",), text)])
        return self


class PoolOverride(Model):
    """What differs from ``[host.pool]`` for the monitor of one VM."""

    min: Pages | None = None
    max: SomePages | None = None
    batch: SomePages | None = None

    def over(self, pool: Pool) -> Pool:
        """Return `pool` with what is given here in place of its own."""
        return pool.model_copy(update=self.model_dump(exclude_none=True))


class Watermarks(Model):
    """Free host memory at which reclaim starts and stops; what is left out follows Linux's rule."""

    min: Size | None = Field(default=None, description="Below it, allocations wait for reclaim.")
    low: Size | None = Field(
        default=None, description="Below it, reclaim in the background starts. Default 5/4 of min."
    )
    high: Size | None = Field(default=None, description="At it, reclaim stops. Default 6/4 of min.")


def _flat(value: object) -> object:
    """Return nested tables as sorted pairs of key path and value, which can be hashed."""
    if not isinstance(value, Mapping):
        return value
    return tuple(sorted(_pairs(value, ()), key=lambda pair: pair[0]))


def _pairs(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _pairs(value, (*path, key))
        else:
            yield (*path, key), _frozen(value)


def _frozen(value: Any) -> Any:
    """Return an array as a tuple, arrays in it too, which can be hashed."""
    if isinstance(value, Mapping):
        raise InputError("found a table in an array, expected numbers, texts and tables of them")
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _written(override: Override) -> dict[str, Any]:
    return nested(tuple((path, list(v) if isinstance(v, tuple) else v) for path, v in override))


CpuOverride = Annotated[
    Override,
    BeforeValidator(_flat),
    PlainSerializer(_written, return_type=dict[str, Any]),
    WithJsonSchema({"type": "object", "description": "Tables merged over those of the CPU."}),
]


def _size_check(key: str, memory: int) -> Iterator[Problem]:
    if memory < PAGE:
        yield Problem((key,), f"{format_size(memory)} is smaller than a page of 4KiB")
    elif memory % PAGE:
        yield Problem((key,), f"{format_size(memory)} is not a whole number of 4KiB pages")
    elif memory > MAX_MEMORY:
        yield Problem((key,), f"{format_size(memory)} is more than vmsim can simulate ({format_size(MAX_MEMORY)})")


class Host(Model):
    """The machine that the VMs share."""

    cpu: str = Field(
        default="skylake-x",
        min_length=1,
        description="A CPU preset, or the path of a CPU file relative to the scenario's folder.",
    )
    cpu_override: CpuOverride = Field(default=(), description="Numbers that replace those of the CPU.")
    cores: Cores = Field(default=1, description="pCPUs.")
    memory: Size = Field(default=16 << 30, description="Memory of the host; that of the VMs may exceed it.")
    quantum: DurationField = Field(
        default=parse_duration("1ms"),
        description="Time slice of a pCPU.",
        json_schema_extra={"default": "1ms"},
    )
    data_caches: Flag = Field(default=False, description="Data accesses go through the caches, as page walks do.")
    fragmentation: Fraction01 = Field(
        default=0.0,
        description="Share of the free memory that is in single pages when the VMs start, 0 to 1: of no use for blocks "
        "of two pages and more. The host's page cache has the pages in between.",
    )
    what_if: Flag = Field(
        default=False, description="Allow paging modes, depths and pages of 1G that the CPU does not have."
    )
    pool: Pool = Field(default=Pool(), description="The page pool of every monitor.")
    watermarks: Watermarks = Field(default=Watermarks(), description="Free memory at which reclaim starts and stops.")

    @model_validator(mode="after")
    def _check(self) -> Host:
        problems = list(_size_check("memory", self.memory))
        if not self.quantum.amount:
            problems.append(Problem(("quantum",), "a zero time slice; it must be at least one cycle"))
        if self.pool.max * PAGE > self.memory:
            size = format_size(self.pool.max * PAGE)
            text = f"pool.max > host.memory ({size} > {format_size(self.memory)})"
            problems.append(Problem(("pool", "max"), text))
        raise_problems(problems)
        return self


class VmGroup(Model):
    """One ``[[vm]]`` table: `count` VMs alike."""

    name: str = Field(pattern=_NAME, description="Letters, digits, - and _; VMs of a group get -0, -1, … after it.")
    count: Vms = Field(default=1, description="VMs of this kind; 0 leaves them out.")
    memory: Size = Field(description="Guest-physical memory.")
    mode: Literal[Mode, "auto"] = Field(
        description="How addresses are translated. auto: npt or ept, as the CPU has them, else shadow or vkernel."
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
    paired: Paired = Field(default=Paired(), description="How the tables of mode paired lie in memory.")
    start: DurationField = Field(
        default=parse_duration("0s"), description="When the VM starts.", json_schema_extra={"default": "0s"}
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
    dirty_log: DirtyLog = Field(default=DirtyLog(), description="How the host learns which pages are written to.")
    nx_split: Flag = Field(
        default=False, description="Large host pages are not executable, and split where code is fetched (mode ept)."
    )
    nx_recovery_period: DurationField = Field(
        default=parse_duration("60s"),
        description="How often some of the pages split so are put together again.",
        json_schema_extra={"default": "60s"},
    )
    nx_recovery_ratio: Annotated[int, Strict(), Field(ge=0, lt=1 << 32)] = Field(
        default=60, description="Of those, one in so many at a time; 0: never."
    )
    shadow: ShadowTable = Field(default=ShadowTable(), description="How mode shadow keeps its tables.")
    agile: AgileSpec = Field(default=AgileSpec(), description="When mode agile moves tables.")
    software_tlb: SoftwareTlb = Field(default=SoftwareTlb(), description="The monitor's own TLB in mode shadow.")
    workload: Workload = Field(description="What the VM runs.")

    @model_validator(mode="after")
    def _check(self) -> VmGroup:
        raise_problems(self._problems())
        return self

    @property
    def bare(self) -> bool:
        """Whether no guest runs in it: a program on the host itself."""
        return bare(self.mode, self.paired)

    @property
    def _bare_process(self) -> str:
        kind = "that becomes a VM (guest_at)" if self.paired.guest_at is not None else "without a guest"
        return f"a paired process {kind}"

    def names(self) -> list[str]:
        """Return the names of the group's VMs."""
        return [self.name] if self.count == 1 else [f"{self.name}-{number}" for number in range(self.count)]

    def _problems(self) -> Iterator[Problem]:
        if self.name.isdigit() or self.name in type(self).model_fields:
            yield Problem(("name",), f"{self.name!r} would be ambiguous in a key such as vm.{self.name}.mode")
        yield from _size_check("memory", self.memory)
        yield from self._page_problems()
        if self.dirty_log.method != "none" and self.mode not in ("ept", "npt", "auto"):
            text = f"the dirty log is of nested tables, modes ept and npt; mode {self.mode} has none that are logged"
            yield Problem(("dirty_log", "method"), text)
        if self.mode != "auto":
            yield from self.level_problems(self.mode)
            yield from self.nx_problems(self.mode)
            yield from self.kernel_problems(self.mode)
        if not self.dirty_log.every.amount:
            yield Problem(("dirty_log", "every"), "no time between two readings; expected more than 0")
        yield from idle_problems(self)
        if isinstance(self.workload, Generator):
            yield from self._region_problems(self.workload)

    def level_problems(self, mode: Mode, host_memory: int = 0) -> Iterator[Problem]:
        """Yield what the depths of its tables cannot do in `mode`, which the CPU chooses where it is auto.

        What is wrong with the host's memory (0: not yet known) has the path ``("host", "memory")``.
        """
        yield from level_problems(
            mode,
            self.guest_levels,
            self.host_levels,
            self.guest_page,
            self.host_page,
            bare=bare(mode, self.paired),
            memory=self.memory,
            host_memory=host_memory,
        )
        if self.host_levels == 2 and self.dirty_log.method != "none":
            text = "no dirty log is kept of nested tables of 2 levels; expected host_levels of 3 to 5"
            yield Problem(("dirty_log", "method"), text)

    def nx_problems(self, mode: Mode) -> Iterator[Problem]:
        """Yield why large pages cannot be split for fetches in `mode`, which the CPU chooses where it is auto."""
        if not self.nx_split:
            return
        if mode != "ept":
            yield Problem(("nx_split",), f"only EPT's large pages are kept from execution, and mode {mode} has none")
        elif self.host_page != "2M":
            why = "there is no large page to split" if self.host_page == "4K" else "pages of 1G are not split so here"
            yield Problem(("nx_split",), f"{why} with host_page = {self.host_page!r}; expected 2M")
        if self.dirty_log.method != "none":
            yield Problem(("nx_split",), "a dirty log splits large pages for itself; choose one of both")
        if not self.nx_recovery_period.amount:
            yield Problem(("nx_recovery_period",), "no time between two recoveries; expected more than 0")

    def kernel_problems(self, mode: Mode) -> Iterator[Problem]:
        """Yield why the kernel's accesses cannot be translated in `mode`, which the CPU chooses where it is auto."""
        if self.kernel_accesses == "free":
            return
        if mode == "vkernel" and self.mode == "auto":
            text = 'mode "auto" is vkernel on this CPU, where the kernel is a process without a map of all memory'
            yield Problem(("kernel_accesses",), f"{text}; choose another mode")
        if self.guest_levels < 4:
            text = f"a guest of {self.guest_levels} levels cannot map all its memory at once; expected guest_levels"
            yield Problem(("kernel_accesses",), f'{text} of 4 or 5, or "free"')
        if mode == "shadow" and self.shadow.spec.hide == "user-bit":
            text = (
                "tables hidden by the user bit are hidden from programs alone, and the kernel's accesses are at CPL 0"
            )
            yield Problem(("kernel_accesses",), f"{text}; expected shadow.hide of write-protect or present-bit")

    def _page_problems(self) -> Iterator[Problem]:
        if self.mode == "vkernel" and self.tags is not None:
            text = "mode vkernel has no VM entries and exits to tag for: its guest is a process; leave tags out"
            yield Problem(("tags",), text)
        guest, host = PAGE_BYTES[self.guest_page], PAGE_BYTES[self.host_page]
        if guest > self.memory >= PAGE:
            text = f"guest_page > memory ({self.guest_page} > {format_size(self.memory)})"
            yield Problem(("guest_page",), text)
        if self.mode == "paired" and self.bare and self.populate == "eager":
            text = f"{self._bare_process} is not populated before the start; leave populate out"
            yield Problem(("populate",), text)
        if not self.bare:
            if host > self.memory >= PAGE:
                text = f"host_page > memory ({self.host_page} > {format_size(self.memory)})"
                yield Problem(("host_page",), text)
            return
        what = "mode native" if self.mode == "native" else self._bare_process
        if self.host_page not in ("4K", self.guest_page):
            text = (
                f"found {self.host_page!r}, but {what} has no second dimension to map with it; "
                f"leave host_page out, and choose the page size with guest_page"
            )
            yield Problem(("host_page",), text)
        if self.host_levels != 4:
            yield Problem(("host_levels",), f"{what} has no nested tables; leave host_levels out")
        if self.tags is not None and not becomes_guest(self.mode, self.paired):
            text = f"{what} has no VM entries and exits to tag for; leave tags out"
            yield Problem(("tags",), text)

    def _region_problems(self, workload: Generator) -> Iterator[Problem]:
        for key in workload.within_memory:
            size = getattr(workload, key)
            if size > self.memory:
                sizes = f"{format_size(size)} > {format_size(self.memory)}"
                yield Problem(("workload", key), f"{key} > memory of the VM ({sizes})")
        bits = 48 if self.guest_levels == 4 else 57
        last = workload.base + workload.footprint - 1
        if self.guest_levels < 4:
            if last >= PROGRAMS_END:
                text = (
                    f"a guest of {self.guest_levels} levels gives its programs the first 3GiB, and the region ends at "
                    f"{last:#_x}; expected a lower base, such as 0x1000_0000, or a smaller footprint"
                )
                yield Problem(("workload", "base"), text)
            return
        wrong = next((a for a in (workload.base, last) if not is_canonical(a, bits)), None)
        if wrong is not None:
            text = f"{wrong:#_x} is not a canonical {bits}-bit address"
            yield Problem(("workload", "base"), f"{text} (the region ends at {last:#_x})" if wrong == last else text)
        elif last >= 1 << (bits - 1):
            text = f"{workload.base:#_x} is in the kernel's half of the address space; expected the lower half"
            yield Problem(("workload", "base"), text)


def _parse_warmup(value: object) -> str | int:
    """Return an access count above 0, or a share as text without needless digits."""
    return parse_share(value, what="a warm-up", expected=_WARMUP_HELP)


Warmup = Annotated[
    str | int,
    BeforeValidator(_parse_warmup),
    WithJsonSchema(
        share_schema("Part of each VM's accesses left out of the figures: a share, or a number.", minimum=0)
    ),
]
