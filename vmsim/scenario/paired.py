"""The table ``[vm.paired]``: how the two page tables of an Akaros process lie in memory, and when it is a VM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from vmsim.base.errors import InputError
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.problems import Problem, raise_problems
from vmsim.scenario.share import parse_share, share_schema
from vmsim.scenario.types import Flag, Model

__all__ = ["Layout", "Paired", "bare", "becomes_guest"]

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


class Paired(Model):
    """``[vm.paired]``."""

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

    def problems_on(self, cpu: Cpu, *, pages_1g: bool) -> Iterator[Problem]:
        """Yield what a CPU lacks for it, by keys of the VM's table; `pages_1g`: its page tables map pages of 1 GiB."""
        has, anyway = {*cpu.modes}, "host.what_if = true allows it anyway"
        if not has & {"ept", "npt"}:
            yield Problem(("mode",), f"mode paired needs EPT or nested paging, which {cpu.name} has not; {anyway}")
        elif self.layout == "shared" and "npt" not in has:
            text = (
                f"one table can serve as both only where nested tables have the format of page tables (NPT); those of "
                f"{cpu.name} are EPT's, whose entries differ (Intel SDM vol. 3C §30.3.2). Expected contiguous, pointer "
                f"or separate; {anyway}"
            )
            yield Problem(("paired", "layout"), text)
        if self.guest_at is not None and not pages_1g:
            text = f"the guest's tables map addresses to themselves by pages of 1G, which {cpu.name} has not"
            yield Problem(("paired", "guest_at"), f"{text}; {anyway}")


def bare(mode: str, paired: Paired) -> bool:
    """Return whether no guest runs in a VM from the start: it is a program on the host itself."""
    return mode == "native" or (mode == "paired" and (not paired.guest or paired.guest_at is not None))


def becomes_guest(mode: str, paired: Paired) -> bool:
    """Return whether it is a process that becomes a VM while it runs."""
    return mode == "paired" and paired.guest_at is not None
