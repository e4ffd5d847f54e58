"""Mode agile in a scenario: the table ``[vm.agile]``, when the monitor moves a guest's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import Field, Strict

from vmsim.base.units import Duration, parse_duration
from vmsim.monitor.shadow.mode import GFN_BYTES, SHADOW_PAGE_BYTES, LoggedByProtection, ShadowTable
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.modes import ModeTable
from vmsim.scenario.types import DurationField, Entries

__all__ = ["AGILE", "AgileSpec", "Moving"]


class AgileSpec(ModeTable):
    """``[vm.agile]``. The defaults are those of Gandhi, Hill and Swift (ISCA 2016), from memory."""

    about = "When mode agile moves tables."

    threshold: Annotated[int, Strict(), Field(ge=1, le=10_000)] = Field(
        default=2, description="Stores to a table in an interval that leave it, and what is below, to nested walks."
    )
    interval: DurationField = Field(
        default=parse_duration("1s"),
        description="Time after which tables go back to the shadow.",
        json_schema_extra={"default": "1s"},
    )
    back: Literal["clean", "all"] = Field(
        default="clean", description="clean: those go back that were not stored to in the interval. all: all of them."
    )
    root_cache: Entries = Field(
        default=0, description="Roots whose shadow the hardware finds by itself at a load of CR3; 0: each is an exit."
    )


class Moving(NamedTuple):
    """What a monitor under agile paging is told.

    Attributes
    ----------
    interval : int
        ``agile.interval`` in cycles.
    limit : int
        Shadow pages kept: ``shadow.limit``.
    """

    spec: AgileSpec
    interval: int
    limit: int


class _Agile(LoggedByProtection):
    name = "agile"
    label = "agile"
    needs = ("ept", "npt")
    guest_levels = (3, 4, 5)
    unrun: ClassVar = {
        2: "the shadows of such guests have PAE's format, as KVM's have (Documentation/virt/kvm/x86/mmu.rst, "
        "role.has_4_byte_gpte), and a walk goes through entries of one format, whichever side they are of: that which "
        "CR4.PAE says (Intel SDM vol. 3A §5.1.1)"
    }
    features = frozenset({"dirty_log", "nx_split"})
    unmarked = "a walk that ends in the shadow sets none there"
    tables: ClassVar = {"agile": AgileSpec}
    reads = (("shadow", "limit"),)
    apart = "tag"
    build = "vmsim.monitor.agile.build:build"
    rehearsal: ClassVar = {}

    def by_ept(self, cpu: Cpu) -> bool:
        return "ept" in cpu.modes

    def times(self, vm: VmKeys) -> Mapping[tuple[str, ...], Duration]:
        return {("agile", "interval"): vm.table(AgileSpec).interval}

    def settings(self, vm: VmKeys, cpu: Cpu) -> Moving:
        spec = vm.table(AgileSpec)
        return Moving(spec, spec.interval.cycles(cpu.frequency), vm.table(ShadowTable).spec.limit)

    def records(self, own: Moving, pages: int) -> int:
        return pages * GFN_BYTES + own.limit * SHADOW_PAGE_BYTES

    def canonical(self, own: Moving) -> dict[str, Any]:
        return {"agile": dict(own.spec) | {"interval": own.interval}, "shadow": {"limit": own.limit}}


AGILE: Final = _Agile()
