"""`Scenario`: the complete input of a simulation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.base.units import PAGE, format_size
from vmsim.scenario import toml
from vmsim.scenario.canonical import canonical
from vmsim.scenario.choice import Choice, choose
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.cpu_files import apply_override, load_cpu
from vmsim.scenario.cpu_needs import cpu_problems, window_problems
from vmsim.scenario.cpuid import features
from vmsim.scenario.daemons import host_daemons, policies, policy_problem
from vmsim.scenario.document import Document
from vmsim.scenario.keys import WEIGHT, VmKeys
from vmsim.scenario.limits import limit_problems, numa_problems
from vmsim.scenario.llc_ways import mask_of, ways_problems
from vmsim.scenario.modes import PagingMode, mode_named
from vmsim.scenario.moved import moved_paths
from vmsim.scenario.names import Mode
from vmsim.scenario.nodes import make_room, placement_of, written
from vmsim.scenario.nx_split import NxSplitSpec
from vmsim.scenario.pools import refill_problems, weighs
from vmsim.scenario.problems import KeyPath, Problem, problems_of, raise_problems
from vmsim.scenario.settings import apply_settings
from vmsim.scenario.share import share_of
from vmsim.scenario.tables import Host, VmGroup, Warmup
from vmsim.scenario.thp import backs_huge
from vmsim.scenario.types import MAX_VMS, Count
from vmsim.scenario.vm import Marks, Vm

__all__ = ["Scenario"]

_LINUX_MIN_KB: Final = (128, 262144)


class Scenario(Document):
    """A host, its VMs and what they run; immutable.

    Read one with `load` or `from_toml`, change one with `replace`. Two scenarios are equal if their keys have
    the same values; the folder that relative paths start from does not count.
    """

    what: ClassVar = "scenario"

    seed: Count = Field(default=1, description="Everything random follows from it.")
    warmup: Warmup = Field(default="0%")
    host: Host = Field(default=Host(), description="The machine that the VMs share.")
    vm: tuple[VmGroup, ...] = Field(
        description="The VMs; each table is a group of equal ones.", json_schema_extra={"minItems": 1}
    )
    _cpu: Cpu = PrivateAttr()

    @classmethod
    def load(cls, path: str | Path, settings: Mapping[str, Any] | None = None) -> Self:
        """Read a scenario file.

        Parameters
        ----------
        path : path
        settings : mapping of str to object, optional
            Values by dotted key that replace those of the file, as of ``--set`` (see `replace`).

        Raises
        ------
        InputError
            The file cannot be read, is not TOML, or says with the settings something that cannot be: with file,
            line and key, or the setting.
        """
        text = toml.read_text(path := Path(path), cls.what)
        source = printable(path)
        tables = toml.parse(text, source)
        options = apply_settings(tables, settings or {}, option="--set")
        return cls.from_tables(tables, folder=path.parent, source=source, text=text, options=options)

    def replace(self, **settings: Any) -> Self:
        """Return a scenario with other values at some dotted keys.

        ``replace(**{"host.pool.min": 128, "vm.mode": "npt", "vm.db.count": 4})``: ``vm.mode`` is for every VM,
        ``vm.0.mode`` for the first table, ``vm.db.mode`` for the one named db. None gives a key its default.
        A new ``workload.kind`` keeps the keys that both kinds have. A new ``mode`` keeps the keys that have an effect
        in it: others go back to their defaults, and so do those that it refuses (`PagingMode.refuses`): in mode native
        `host_page`, `host_levels` and `tags`, in mode vkernel `tags`, and `nx_split` where a mode has none.

        Raises
        ------
        InputError
            A key that does not exist (with the nearest one that does), or a value that cannot be.
        """
        data = make_room(self._data(), settings)
        apply_settings(data, settings)
        return self.from_tables(data, folder=self.folder)

    def with_mode(self, mode: Mode) -> Self:
        """Return the scenario with every VM in `mode`, without the keys that have no effect there (see `replace`)."""
        return self.replace(**{"vm.mode": mode})

    def to_toml(self) -> str:
        """Return the scenario as a TOML text, defaults written out; `from_toml` gives an equal scenario."""
        import tomli_w

        return tomli_w.dumps(self._data())

    def save(self, path: str | Path) -> None:
        """Write the scenario to a file, whole or not at all.

        Relative paths that lead to a file are written so that they lead there from the new folder.

        Raises
        ------
        InputError
            The folder is missing or read-only, or the disk is full.
        """
        from vmsim.base.files import replacing

        path = Path(path)
        moved = self.replace(**dict(moved_paths(self.host, self.vm, self.daemons, self.folder, path.parent)))
        with replacing(path) as temporary:
            temporary.write_text(moved.to_toml(), encoding="utf-8")

    def _repr_html_(self) -> str:
        from vmsim.scenario.html import page

        host = self.host
        heading = f"{self.cpu.name}, {host.cores} cores, {format_size(host.memory)}; seed {self.seed}"
        heading += f", warmup {self.warmup}" if str(self.warmup) != "0%" else ""
        return page(heading, self.vm, self.to_toml())

    @property
    def cpu(self) -> Cpu:
        """The host's CPU, `host.cpu_override` included."""
        return self._cpu

    @cached_property
    def vms(self) -> tuple[Vm, ...]:
        """All VMs, in the order of the file, each group expanded by its count."""
        pairs = [(group, name) for group in self.vm for name in group.names()]
        return tuple(self._expanded(group, name, index) for index, (group, name) in enumerate(pairs))

    @property
    def choices(self) -> dict[str, Choice]:
        """The modes chosen for VMs with ``mode = "auto"``, by the name of their table."""
        return {group.name: choose(self.cpu) for group in self.vm if group.mode == "auto" and group.count}

    @property
    def pages_1g(self) -> bool:
        """Whether a page table may map pages of 1 GiB: by CPUID 8000_0001 EDX[26], where the CPU's file gives it."""
        return self.host.what_if or self.cpu.cpuid is None or features(self.cpu.cpuid).pages_1g

    @property
    def quantum(self) -> int:
        """Time slice of a pCPU in cycles."""
        return self.host.quantum.cycles(self.cpu.frequency)

    @property
    def horizon(self) -> int:
        """Cycles that a vCPU may run ahead of what others do to it."""
        return self.host.horizon.cycles(self.cpu.frequency)

    @property
    def watermarks(self) -> Marks:
        """Watermarks of the host in 4 KiB pages.

        What the scenario leaves out follows Linux (mm/page_alloc.c): min is the square root of 16 times the
        memory in KiB, held between 128 and 262144 KiB; low is 5/4 of min, high 6/4.
        """
        kib = isqrt(16 * (self.host.memory >> 10))
        given = self.host.watermarks
        floor, ceiling = _LINUX_MIN_KB
        lowest = given.min // PAGE if given.min else (max(floor, min(kib, ceiling)) << 10) // PAGE
        low = given.low // PAGE if given.low else lowest * 5 // 4
        high = given.high // PAGE if given.high else lowest * 6 // 4
        return Marks(lowest, low, high)

    @property
    def daemons(self) -> tuple[str, ...]:
        """Names of the daemons that the host runs."""
        return tuple(name for name, each in host_daemons().items() if each.runs(self.host.part(name)))

    @property
    def _choosing(self) -> set[str]:
        """Names of the policies of daemons that run, and of the one for spare pages."""
        of_daemons = {each for name in self.daemons for each in host_daemons()[name].policies(self.host.part(name))}
        return of_daemons | {self.host.spares}

    def warmup_accesses(self, accesses: int) -> int:
        """Return how many of a VM's first accesses, of `accesses` in all, are left out of the figures."""
        return share_of(self.warmup, accesses)

    def canonical(self) -> str:
        """Return what decides the results, as JSON with sorted keys: the text to hash.

        Sizes are in bytes and times in cycles, but a device's time, which no CPU decides, is in its own unit. The CPU
        is written out figure by figure and groups VM by VM, so that two ways of writing the same thing are the same
        text.
        """
        return canonical(
            self.seed,
            self.warmup,
            self.cpu,
            self.host,
            self.vms,
            quantum=self.quantum,
            horizon=self.horizon,
            watermarks=self.watermarks,
            daemons=self.daemons,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scenario) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def _fields(self) -> tuple[object, ...]:
        return self.seed, self.warmup, self.host, self.vm

    def _data(self) -> dict[str, Any]:
        """Return the tables as in a TOML file, without empty ones; the kind of a workload comes first."""
        data = self.model_dump(exclude_none=True)
        data["host"] = written(data["host"])
        data["vm"] = list(data["vm"])
        for group in data["vm"]:
            workload = group.pop("workload")
            group["workload"] = {"kind": workload.pop("kind"), **workload}
        return data

    def _expanded(self, group: VmGroup, name: str, index: int) -> Vm:
        mode, frequency = self._mode_of(group), self.cpu.frequency
        return Vm(
            name=name,
            index=index,
            group=group.name,
            memory=group.memory,
            mode=mode.name,
            guest_page=group.guest_page,
            host_page=group.host_page,
            populate=group.populate,
            tags=self._tags_of(group),
            pcid=mode.pcid if group.pcid is None else group.pcid,
            kernel_accesses=group.kernel_accesses,
            **{key: getattr(group, key) for key in ("fill_chunk", "table_span", "fragmentation", "vcpus")},
            **{key: getattr(group, key) for key in ("cpu_cap", "guest_levels", "host_levels")},
            cpu_weight=group.cpu_weight or WEIGHT,
            llc_ways=mask_of(group.llc_ways),
            pv_flush=group.pv_flush,
            tdp_mmu=group.tdp_mmu,
            start=group.start.cycles(frequency),
            stop=group.stop.cycles(frequency) if group.stop else None,
            pool=group.pool.over(self.host.pool) if group.pool else self.host.pool,
            shares=group.shares,
            **{key: (getattr(group, key) or 0) // PAGE for key in ("memory_high", "memory_max")},
            placement=placement_of(group.numa, index, self.host.nodes),
            content=group.content,
            balloon=group.balloon.spec(frequency),
            virtio_mem=group.virtio_mem.spec(group.memory, frequency),
            bilateral=group.bilateral.spec(frequency),
            files=group.files.spec(frequency),
            thp=group.thp.spec(frequency),
            host_thp=backs_huge(self.host.part("thp"), group.host_page, group.host_levels, bare=mode.bare(group)),
            reclaim=group.reclaim.spec(group.memory),
            dirty_log=group.dirty_log.spec(frequency),
            nx_split=self._nx_split_of(group),
            own=mode.settings(group, self.cpu),
            bare=mode.bare(group),
            becomes_guest=mode.becomes_guest(group),
            workload=group.workload,
        )

    def _mode_of(self, group: VmGroup) -> PagingMode:
        return mode_named(choose(self.cpu).mode if group.mode == "auto" else group.mode)

    def _nx_split_of(self, group: VmGroup) -> NxSplitSpec | None:
        spec = NxSplitSpec(group.nx_recovery_period.cycles(self.cpu.frequency), group.nx_recovery_ratio)
        return spec if group.nx_split else None

    def _tags_of(self, group: VmGroup) -> Literal["none", "vpid", "asid"] | None:
        mode = self._mode_of(group)
        if (group.bare and not mode.becomes_guest(group)) or not mode.tagged:
            return None
        return group.tags or ("asid" if self.cpu.vendor == "amd" else "vpid")

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_problems(self._load_cpu())
        raise_problems([*self._host_problems(), *self._name_problems(), *self._vm_problems()])
        return self

    def _load_cpu(self) -> Iterator[Problem]:
        try:
            self._cpu = load_cpu(self.host.cpu, folder=self.folder)
            if self.host.cpu_override:
                self._cpu = apply_override(self._cpu, self.host.cpu_override)
        except ValidationError as error:
            for problem in problems_of(error, Cpu):
                yield problem._replace(path=("host", "cpu_override", *problem.path))
        except InputError as error:
            yield Problem(("host", "cpu"), str(error))

    def _host_problems(self) -> Iterator[Problem]:
        for key in ("quantum", "horizon", *(["samples"] if self.host.samples.amount else ())):
            if (time := getattr(self.host, key)).cycles(self.cpu.frequency) < 1:
                yield Problem(("host", key), f"{time} is less than one cycle of {self.cpu.name}")
        yield from window_problems(self.host.overlap, self.cpu)
        marks, pages = self.watermarks, self.host.memory // PAGE
        if not marks.min <= marks.low <= marks.high:
            text = f"expected min ≤ low ≤ high, found {marks.min}, {marks.low}, {marks.high} pages"
            yield Problem(("host", "watermarks"), text)
        elif marks.high >= pages:
            size, memory = format_size(marks.high * PAGE), format_size(self.host.memory)
            yield Problem(("host", "watermarks"), f"high ≥ host.memory ({size} ≥ {memory})")
        elif marks.high >= (left := int(pages / (1 + self.host.fragmentation))):
            size, memory = format_size(marks.high * PAGE), format_size(left * PAGE)
            text = f"leaves {memory} free, and the high watermark is {size}; expected less, or more host.memory"
            yield Problem(("host", "fragmentation"), text)
        for name, part in (*host_daemons().items(), *policies().items()):
            for problem in part.problems(self.host.part(name), self.vm):
                yield problem._replace(path=("host", name, *problem.path))
        if wrong := policy_problem(self.host.spares, "spares"):
            yield Problem(("host", "spares"), wrong)
        for problem in refill_problems(self.host.pool):
            yield problem._replace(path=("host", "pool", *problem.path))
        used = self._choosing | ({vm.pool.refill for vm in self.vms if vm.pooled} if not wrong else set())
        for name in policies().keys() - used:
            if (table := self.host.part(name)) is not None and table.given:
                yield Problem(("host", name), f"it has no effect: nothing uses policy {name!r}")

    def _name_problems(self) -> Iterator[Problem]:
        total = sum(group.count for group in self.vm)
        if not 1 <= total <= MAX_VMS:
            yield Problem(("vm",), f"{total} VMs, expected 1 to {MAX_VMS}")
            return
        vcpus = sum(group.count * group.vcpus for group in self.vm)
        if vcpus > MAX_VMS:
            yield Problem(("vm",), f"{vcpus} vCPUs in {total} VMs, expected at most {MAX_VMS}")
            return
        taken: dict[str, int] = {}
        for number, group in enumerate(self.vm):
            for name in {group.name: None} | dict.fromkeys(group.names()):
                first = taken.setdefault(name, number)
                if first != number:
                    text = f"duplicated VM name {name!r}: the table vm.{first} already gives it"
                    yield Problem(("vm", number, "name"), text)
                    break

    def _vm_problems(self) -> Iterator[Problem]:
        for number, group in enumerate(self.vm):
            here: KeyPath = ("vm", number)
            if group.pool is not None:
                merged = group.pool.over(self.host.pool)
                for problem in (*group.pool.problems_over(self.host.pool), *refill_problems(merged, group.pool)):
                    yield problem._replace(path=(*here, "pool", *problem.path))
            if group.stop and group.stop.cycles(self.cpu.frequency) <= group.start.cycles(self.cpu.frequency):
                yield Problem((*here, "stop"), f"{group.stop} is not after the start ({group.start})")
            if group.cpu_weight is not None and self.host.scheduler == "round-robin":
                text = 'host.scheduler = "round-robin" gives all vCPUs the same. Expected "fair" or "credit".'
                yield Problem((*here, "cpu_weight"), text)
            if group.cpu_cap and self.host.scheduler != "credit":
                text = f'host.scheduler = "{self.host.scheduler}" has no caps. Expected "credit".'
                yield Problem((*here, "cpu_cap"), text)
            if group.shares != VmKeys.model_fields["shares"].default and not weighs(self._choosing):
                text = f'nothing goes by shares with host.spares = "{self.host.spares}"; leave it out'
                yield Problem((*here, "shares"), text)
            mode = self._mode_of(group)
            asked = (*limit_problems(group, mode), *numa_problems(group, mode, self.host.nodes))
            asked += (*ways_problems(group.llc_ways, self.cpu),)
            yield from (problem._replace(path=(*here, *problem.path)) for problem in asked)
            times = {
                **mode.times(group),
                ("dirty_log", "every"): group.dirty_log.every,
                ("nx_recovery_period",): group.nx_recovery_period,
            }
            for path, time in times.items():
                told = not time.amount and path[0] in VmKeys.model_fields  # by the table itself
                if not told and time.cycles(self.cpu.frequency) < 1:
                    yield Problem((*here, *path), f"{time} is less than one cycle of {self.cpu.name}")
            for problem in group.level_problems(mode, self.host.memory):
                of_host = problem.path == ("host", "memory")
                if of_host or group.mode == "auto":  # else the table has told of it
                    yield problem._replace(path=problem.path if of_host else (*here, *problem.path))
            if group.mode == "auto":
                for problem in (*group.nx_problems(mode), *group.kernel_problems(mode)):
                    yield problem._replace(path=(*here, *problem.path))
            if self.host.what_if:
                continue
            if group.mode != "auto":
                for problem in mode.problems_on(group, self.cpu, pages_1g=self.pages_1g):
                    yield problem._replace(path=(*here, *problem.path))
            for problem in cpu_problems(group, mode, self.cpu):
                yield problem._replace(path=(*here, *problem.path))
