"""Mode paired in a scenario: how the two tables of an Akaros process lie in memory, and when it is a VM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from vmsim.base.errors import InputError
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.modes import ModeTable, PagingMode
from vmsim.scenario.problems import Problem, raise_problems
from vmsim.scenario.share import parse_share, share_schema
from vmsim.scenario.types import Flag

__all__ = ["PAIRED", "Layout", "Paired"]

Layout = Literal["contiguous", "pointer", "separate", "shared"]


def _parse_guest_at(value: object) -> str | int | None:
    """Return a number of accesses above 0, a share as text, or None."""
    if value is None:
        return None
    expected = 'write a share below 100 % such as "50%", or a number of accesses'
    share = parse_share(value, what="a moment in the workload", expected=expected)
    if share == "0%":
        raise InputError(f"{value!r} is the start: leave guest_at out for a process that is a VM from there on")
    return share


class Paired(ModeTable):
    """``[vm.paired]``."""

    about = "How the tables of mode paired lie in memory."

    layout: Layout = Field(
        default="contiguous",
        description="How a table's EPT half is found from its KPT half: it is the next page; a pointer for each page "
        "frame of the host says where it is; or the EPT is a tree of its own, made when the process becomes a VM; or "
        "(shared, with NPT) there is one tree for both.",
    )
    guest: Flag = Field(
        default=True, description="A guest runs in the process. Without, it is a process that is no VM, on its KPT."
    )
    guest_at: Annotated[
        str | int | None,
        BeforeValidator(_parse_guest_at),
        WithJsonSchema(
            share_schema(
                "The process becomes a VM after so many of its accesses, a share or a number, and goes on in it.",
                minimum=1,
            )
        ),
    ] = None

    @model_validator(mode="after")
    def _check(self) -> Paired:
        if self.guest_at is not None and not self.guest:
            text = "a process without a guest (guest = false) never becomes a VM; leave one of both out"
            raise_problems([Problem(("guest_at",), text)])
        return self


class _Paired(PagingMode):
    name = "paired"
    label = "paired"
    needs = ("ept", "npt")
    tables: ClassVar = {"paired": Paired}
    ignores = frozenset({"kernel_accesses", "tdp_mmu"})
    unlogged = (
        "Akaros's kernel looks for modified pages to write them to their files, and for nothing else "
        "(kern/src/pagemap.c, pm_writeback_pages; kern/src/mm.c, where pages are unmapped)"
    )
    build = "vmsim.monitor.paired.build:build"

    def bare(self, vm: VmKeys) -> bool:
        paired = vm.table(Paired)
        return not paired.guest or paired.guest_at is not None

    def bare_name(self, vm: VmKeys) -> str:
        becoming = vm.table(Paired).guest_at is not None
        return f"a paired process {'that becomes a VM (guest_at)' if becoming else 'without a guest'}"

    def becomes_guest(self, vm: VmKeys) -> bool:
        return vm.table(Paired).guest_at is not None

    def by_ept(self, cpu: Cpu) -> bool:
        return "ept" in cpu.modes

    def entries(self, *, bare: bool) -> int:
        return 2 * super().entries(bare=bare)

    def frame_records(self, own: Paired) -> int:
        return 8 if own.layout == "pointer" else 0

    def problems(self, vm: VmKeys) -> Iterator[Problem]:
        if self.bare(vm) and vm.populate == "eager":
            text = f"{self.bare_name(vm)} is not populated before the start; leave populate out"
            yield Problem(("populate",), text)
        if vm.table(Paired).guest_at is not None and vm.vcpus > 1:
            text = (
                f"found {vm.vcpus}, but a process that becomes a VM while it runs (paired.guest_at) does so on one "
                "core: on Akaros its other cores stay the process's own, beside those of the guest, and that is not "
                "simulated. Expected 1"
            )
            yield Problem(("vcpus",), text)

    def problems_on(self, vm: VmKeys, cpu: Cpu, *, pages_1g: bool) -> Iterator[Problem]:
        yield from super().problems_on(vm, cpu, pages_1g=pages_1g)
        paired, anyway = vm.table(Paired), "host.what_if = true allows it anyway"
        if self.runs_on(cpu) and paired.layout == "shared" and "npt" not in cpu.modes:
            text = (
                f"one table can serve as both only where nested tables have the format of page tables (NPT); those of "
                f"{cpu.name} are EPT's, whose entries differ (Intel SDM vol. 3C §30.3.2). Expected contiguous, pointer "
                f"or separate; {anyway}"
            )
            yield Problem(("paired", "layout"), text)
        if paired.guest_at is not None and not pages_1g:
            text = f"the guest's tables map addresses to themselves by pages of 1G, which {cpu.name} does not have"
            yield Problem(("paired", "guest_at"), f"{text}; {anyway}")


PAIRED: Final = _Paired()
