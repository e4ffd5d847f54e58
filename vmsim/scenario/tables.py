"""The tables of a scenario file as they are written: ``[host]``, ``[host.pool]``, ``[[vm]]``, ..."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, create_model, model_validator

from vmsim import plugins
from vmsim.base.errors import InputError
from vmsim.base.units import PAGE, PAGE_BYTES, format_size, is_canonical, parse_duration
from vmsim.scenario.cpu_files import Override, nested
from vmsim.scenario.daemons import host_daemons, policies
from vmsim.scenario.idle import idle_problems
from vmsim.scenario.keys import Pool, PoolOverride, VmKeys
from vmsim.scenario.levels import PROGRAMS_END, level_problems
from vmsim.scenario.limits import size_problems
from vmsim.scenario.modes import PagingMode, mode_named, paging_modes
from vmsim.scenario.nodes import Distances, Node, node_problems, sums
from vmsim.scenario.problems import Problem, raise_problems
from vmsim.scenario.schedule import SizeOrNone
from vmsim.scenario.share import parse_share, share_schema
from vmsim.scenario.types import Cores, Cycles, DurationField, Flag, Fraction01, Model, Size
from vmsim.scenario.uptime import TABLE_SPAN, guest_problems, span_problems
from vmsim.scenario.workload import Generator

__all__ = [
    "Host",
    "Pool",
    "PoolOverride",
    "VmGroup",
    "Watermarks",
]

_WARMUP_HELP: Final = 'write a share below 100 % such as "10%", or a number of accesses of each VM, at most 10**12'


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


class _Host(Model):
    """The machine that the VMs share."""

    cpu: str = Field(
        default="skylake-x",
        min_length=1,
        description="A CPU preset, or the path of a CPU file relative to the scenario's folder.",
    )
    cpu_override: CpuOverride = Field(default=(), description="Numbers that replace those of the CPU.")
    cores: Cores = Field(default=1, description="pCPUs.")
    memory: Size = Field(default=16 << 30, description="Memory of the host; that of the VMs may exceed it.")
    nodes: tuple[Node, ...] = Field(
        default=(), description="NUMA nodes, those with CPUs first; without, all memory and pCPUs are one's."
    )
    remote_cycles: Cycles | None = Field(
        default=None, description="What a load takes longer that the memory of another socket serves."
    )
    distances: Distances = Field(
        default=(), description="How far each node is from each, 10 from itself, as an ACPI SLIT says it."
    )
    quantum: DurationField = Field(
        default=parse_duration("1ms"),
        description="Time slice of a pCPU.",
        json_schema_extra={"default": "1ms"},
    )
    scheduler: Literal["round-robin", "fair", "credit"] = Field(
        default="round-robin",
        description="Which vCPU has the next pCPU. fair: by weight, as Linux's CFS. credit: Xen's.",
    )
    horizon: DurationField = Field(
        default=parse_duration("20us"),
        description="How far a vCPU may run ahead of what others do to it.",
        json_schema_extra={"default": "20us"},
    )
    samples: DurationField = Field(
        default=parse_duration("0s"),
        description="How often the memory of the host and of each VM is noted, for the table memory. 0s: never.",
        json_schema_extra={"default": "0s"},
    )
    data_caches: Flag = Field(default=False, description="Data accesses go through the caches, as page walks do.")
    overlap: Flag = Field(
        default=False, description="What the CPU's out-of-order window holds goes on at once: walks, misses, work."
    )
    fragmentation: Fraction01 = Field(
        default=0.0,
        description="Share of the free memory that is in single pages when the VMs start, 0 to 1, and so unusable for "
        "larger blocks. The host's page cache has the pages in between.",
    )
    table_span: SizeOrNone = Field(default=0, description=TABLE_SPAN)
    what_if: Flag = Field(
        default=False, description="Allow paging modes, depths and pages of 1G that the CPU does not have."
    )
    pool: Pool = Field(default=Pool(), description="The page pool of every monitor.")
    spares: str = Field(
        default="largest",
        description="Which pools give pages when the host is short, and who gets frames first. largest: who has most "
        "to spare, who asked first. fair: down to a common level, who had least. neediest: as largest, who lacks most. "
        "shares: as fair, by the shares of the VMs.",
    )
    watermarks: Watermarks = Field(default=Watermarks(), description="Free memory at which reclaim starts and stops.")
    oom: Literal["largest", "newest", "asker", "none"] | None = Field(
        default=None,
        description="Which VM is ended when the host is out of memory and nothing more can be taken: the one with most "
        "pages, the one started last, the one that asks, or none, and those that ask are suspended. Default: with "
        "host.swap the largest, else none.",
    )

    @model_validator(mode="before")
    @classmethod
    def _told_of_broken(cls, data: Any) -> Any:
        """Say which package is broken whose daemon or policy has a table here."""
        for key in data if isinstance(data, dict) else ():
            for group in ("daemons", "policies"):
                if key not in cls.model_fields and key in plugins.names(group):
                    try:
                        plugins.load(group, key)
                    except InputError as error:
                        raise_problems([Problem((key,), str(error))])
        return data

    @model_validator(mode="after")
    def _check(self) -> _Host:
        given = {key: getattr(self, key) for key in ("memory", "cores") if key in self.model_fields_set}
        problems = list(node_problems(self.nodes, given, self.remote_cycles, self.distances))
        if self.nodes and not problems:
            self.__dict__.update(sums(self.nodes))  # what the nodes have together
        for name, part in host_daemons().items():
            wrong = part.host_problems(self.part(name), self)
            problems += [each._replace(path=(name, *each.path)) for each in wrong]
        problems += size_problems("memory", self.memory)
        problems += span_problems(self.table_span, self.memory)
        if not self.quantum.amount:
            problems.append(Problem(("quantum",), "a zero time slice; it must be at least one cycle"))
        if not self.horizon.amount:
            problems.append(Problem(("horizon",), "a zero horizon; it must be at least one cycle"))
        if self.pool.supply == "grant" and self.pool.max * PAGE > self.memory:
            size = format_size(self.pool.max * PAGE)
            text = f"pool.max > host.memory ({size} > {format_size(self.memory)})"
            problems.append(Problem(("pool", "max"), text))
        raise_problems(problems)
        return self

    def part(self, name: str) -> Any:
        """Return the table of a daemon or a policy, None if it has none."""
        return getattr(self, name, None)


class _VmGroup(VmKeys):
    """One ``[[vm]]`` table: `count` VMs alike."""

    @model_validator(mode="after")
    def _check(self) -> _VmGroup:
        raise_problems(self._problems())
        return self

    @property
    def bare(self) -> bool:
        """Whether no guest runs in it: a program on the host itself."""
        return self.mode != "auto" and mode_named(self.mode).bare(self)

    def _problems(self) -> Iterator[Problem]:
        if self.name.isdigit() or self.name in type(self).model_fields:
            yield Problem(("name",), f"{self.name!r} would be ambiguous in a key such as vm.{self.name}.mode")
        yield from size_problems("memory", self.memory)
        yield from self._page_problems()
        if self.mode != "auto":
            mode = mode_named(self.mode)
            yield from mode.log_problems(self)
            if self.pv_flush and (mode.bare(self) or mode.name == "vkernel"):
                yield Problem(
                    ("pv_flush",), f"mode {mode.name} has no vCPUs that a host keeps from running: leave it out"
                )
            yield from mode.problems(self)
            yield from self.level_problems(mode)
            yield from self.nx_problems(mode)
            yield from self.kernel_problems(mode)
        if not self.dirty_log.every.amount:
            yield Problem(("dirty_log", "every"), "no time between two readings; expected more than 0")
        for problem in self.balloon.problems(self.memory, logged=self.dirty_log.method != "none"):
            yield problem._replace(path=("balloon", *problem.path))
        for problem in self.virtio_mem.problems(self.memory, bare=self.bare):
            yield problem._replace(path=("virtio_mem", *problem.path))
        for problem in self.bilateral.problems(self.memory, bare=self.bare):
            yield problem._replace(path=("bilateral", *problem.path))
        for problem in self.files.problems(self.workload.kind):
            yield problem._replace(path=("files", *problem.path))
        for problem in self.reclaim.problems(bare=self.bare):
            yield problem._replace(path=("reclaim", *problem.path))
        if self.balloon.given and self.bare:
            what = mode_named(self.mode).bare_name(self)
            yield Problem(("balloon",), f"no kernel of a guest is there to give memory back: {what}; leave it out")
        yield from guest_problems(self, bare=self.bare and mode_named(self.mode).bare_name(self))
        for problem in self.thp_problems():
            yield problem._replace(path=("thp", *problem.path))
        yield from idle_problems(self)
        if isinstance(self.workload, Generator):
            yield from self._region_problems(self.workload)

    def level_problems(self, mode: PagingMode, host_memory: int = 0) -> Iterator[Problem]:
        """Yield what the depths of its tables cannot do in `mode`, which the CPU chooses where it is auto.

        What is wrong with the host's memory (0: not yet known) has the path ``("host", "memory")``.
        """
        yield from level_problems(
            mode,
            self.guest_levels,
            self.host_levels,
            self.guest_page,
            self.host_page,
            bare=mode.bare(self),
            memory=self.memory,
            host_memory=host_memory,
        )
        if self.host_levels == 2 and self.dirty_log.method != "none":
            text = (
                "no dirty log is kept of nested tables of 2 levels: KVM's MMU has none itself, so that on a host in "
                "32-bit paging it does without NPT (arch/x86/kvm/svm/svm.c, svm_hardware_setup); expected host_levels "
                "of 3 to 5"
            )
            yield Problem(("dirty_log", "method"), text)

    def nx_problems(self, mode: PagingMode) -> Iterator[Problem]:
        """Yield why large pages cannot be split for fetches in `mode`, which the CPU chooses where it is auto."""
        if not self.nx_split:
            return
        if why := mode.refusal("nx_split"):
            yield Problem(("nx_split",), why)
        elif self.host_page != "2M":
            why = "there is no large page to split" if self.host_page == "4K" else "pages of 1G are not split so here"
            yield Problem(("nx_split",), f"{why} with host_page = {self.host_page!r}; expected 2M")
        elif mode.whole_by_guest and self.guest_page == "4K" and self.thp.enabled == "never":
            text = f"there is no large page to split: in mode {mode.name} no entry maps more than the guest's own does"
            yield Problem(("nx_split",), f"{text}, with guest_page = {self.guest_page!r}; expected 2M, or thp.enabled")
        if not self.nx_recovery_period.amount:
            yield Problem(("nx_recovery_period",), "no time between two recoveries; expected more than 0")

    def thp_problems(self) -> Iterator[Problem]:
        """Yield why its kernel cannot make huge pages as its table asks, by the keys of ``[vm.thp]``."""
        if self.thp.enabled == "never":
            return (yield from self.thp.idle())
        if self.guest_page != "4K":
            text = f"guest_page = {self.guest_page!r} has the kernel map pages of that size anyway"
            yield Problem(("enabled",), f"{text}; leave one of the two out")
        if self.mode == "paired" and self.bare:
            yield Problem(("enabled",), "a paired process without a guest maps pages of one size; leave it out")
        least = PAGE_BYTES["4M" if self.guest_levels == 2 else "2M"]
        if self.memory < least:
            yield Problem(("enabled",), f"the VM has less memory than a huge page ({format_size(least)})")

    def kernel_problems(self, mode: PagingMode) -> Iterator[Problem]:
        """Yield why the kernel's accesses cannot be translated in `mode`, which the CPU chooses where it is auto."""
        if self.kernel_accesses == "free":
            return
        if self.guest_levels < 4:
            text = f"a guest of {self.guest_levels} levels cannot map all its memory at once; expected guest_levels"
            yield Problem(("kernel_accesses",), f'{text} of 4 or 5, or "free"')
        yield from mode.kernel_problems(self)

    def _page_problems(self) -> Iterator[Problem]:
        guest, host = PAGE_BYTES[self.guest_page], PAGE_BYTES[self.host_page]
        if guest > self.memory >= PAGE:
            text = f"guest_page > memory ({self.guest_page} > {format_size(self.memory)})"
            yield Problem(("guest_page",), text)
        if not self.bare:
            if host > self.memory >= PAGE:
                text = f"host_page > memory ({self.host_page} > {format_size(self.memory)})"
                yield Problem(("host_page",), text)
            return
        mode = mode_named(self.mode)
        what = mode.bare_name(self)
        if self.host_page not in ("4K", self.guest_page):
            text = (
                f"found {self.host_page!r}, but {what} has no second dimension to map with it; "
                f"leave host_page out, and choose the page size with guest_page"
            )
            yield Problem(("host_page",), text)
        if self.host_levels != 4:
            yield Problem(("host_levels",), f"{what} has no nested tables; leave host_levels out")
        if self.tags is not None and not mode.becomes_guest(self):
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


def _with_parts() -> type[_VmGroup]:
    """Return the class of ``[[vm]]`` tables: with a key for each table of a registered mode, and every workload."""
    kinds: Any = Union[tuple(plugins.loaded("workloads").values())]  # noqa: UP007  (made of what is registered)
    workload = VmKeys.model_fields["workload"].description
    fields: dict[str, Any] = {"workload": (kinds, Field(discriminator="kind", description=workload))}
    for mode in paging_modes().values():
        for key, table in mode.tables.items():
            fields[key] = (table, Field(default=table(), description=table.about))
    made = create_model("VmGroup", __base__=_VmGroup, __module__=__name__, **fields)
    made.__doc__ = _VmGroup.__doc__
    return made


def _host_with_parts() -> type[_Host]:
    """Return the class of ``[host]``: with a key for the table of each registered daemon and policy."""
    fields: dict[str, Any] = {}
    for name, part in (*host_daemons().items(), *policies().items()):
        if part.table:
            fields[name] = (part.table, Field(default=part.table(), description=part.table.about))
    made = create_model("Host", __base__=_Host, __module__=__name__, **fields)
    made.__doc__ = _Host.__doc__
    return made


if TYPE_CHECKING:
    VmGroup = _VmGroup
    Host = _Host
else:
    VmGroup = _with_parts()
    Host = _host_with_parts()


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
