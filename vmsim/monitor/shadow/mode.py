"""Mode shadow in a scenario: the tables ``[vm.shadow]`` and ``[vm.software_tlb]``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final, Literal, NamedTuple

from pydantic import Field, model_validator

from vmsim.base.units import PAGE
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.cpuid import Features
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.modes import ModeTable, PagingMode
from vmsim.scenario.problems import Problem, raise_problems
from vmsim.scenario.types import Entries, Model, Work

__all__ = [
    "GFN_BYTES",
    "SHADOW",
    "SHADOW_PAGE_BYTES",
    "SHADOW_PRESETS",
    "LoggedByProtection",
    "ShadowSpec",
    "ShadowTable",
    "Shadowing",
    "SoftwareTlb",
]

Fill = Literal["lazy", "eager"]
Trap = Literal["single-step", "emulate", "unsync"]
Step = Literal["trap-flag", "debug-register"]
Hide = Literal["write-protect", "user-bit", "present-bit"]
OnCr3 = Literal["flush", "cache"]
Ad = Literal["write-protect", "read-sync"]

GFN_BYTES: Final = 16  # of a guest frame (monitor.shadow.records.GFN)
SHADOW_PAGE_BYTES: Final = 512 * 16 + 76 + PAGE  # a shadow page, its record and the links of its entries
_LEAST: Final = 16
_MOST: Final = 1 << 18


class ShadowSpec(Model):
    """How a monitor shadows, with nothing left out. The defaults are KVM's."""

    fill: Fill = "lazy"
    trap: Trap = "unsync"
    step: Step = "trap-flag"
    hide: Hide = "write-protect"
    on_cr3: OnCr3 = "cache"
    limit: int = 1024
    ad: Ad = "write-protect"
    write_flood: int = 3


# Linux arch/x86/kvm/mmu/mmu.c. Since 2.6.28 (2008) `mmu_try_to_unsync_pages` (then `kvm_unsync_page`) leaves tables of
# level 1 to the guest, and `detect_write_flooding` counts stores to those above alone. Before, every store to a table
# was emulated, and the third in a row ended its shadow (`kvm_mmu_pte_write`, `last_pt_write_count`).
SHADOW_PRESETS: Final = {
    "kvm": ShadowSpec(),
    "kvm-2007": ShadowSpec(trap="emulate"),
    "plex86": ShadowSpec(trap="single-step", hide="user-bit", on_cr3="flush", ad="read-sync", write_flood=0),
}


class ShadowTable(ModeTable):
    """``[vm.shadow]`` as it is written: a preset, and what differs from it."""

    about = "How mode shadow keeps its tables."

    preset: Literal["kvm", "kvm-2007", "plex86"] = Field(
        default="kvm", description="The monitor whose ways are the defaults."
    )
    fill: Fill | None = Field(
        default=None, description="lazy: translate when the guest faults. eager: as soon as its entry appears."
    )
    trap: Trap | None = Field(
        default=None,
        description="How a store to a hidden table is made: map the table and single-step; emulate; or leave tables of "
        "level 1 to the guest at the first store and bring the shadow back into step at INVLPG and CR3 loads (unsync).",
    )
    step: Step | None = Field(
        default=None, description='What stops the guest after a single step; only with trap = "single-step".'
    )
    hide: Hide | None = Field(
        default=None,
        description="How tables are hidden: write-protect traps stores; user-bit and present-bit loads as well.",
    )
    on_cr3: OnCr3 | None = Field(
        default=None, description="A CR3 load drops the shadow (flush), or keeps shadow pages by root (cache)."
    )
    limit: int | None = Field(
        default=None, ge=_LEAST, le=_MOST, description="Shadow pages kept; the least recently used makes room."
    )
    ad: Ad | None = Field(
        default=None,
        description="write-protect: clean pages are, to learn of the first write. read-sync: A and D are the "
        "hardware's, and brought up to date when the guest loads an entry.",
    )
    write_flood: Work | None = Field(
        default=None,
        description="Emulated stores to one table after which its shadow goes; 0: never. With unsync it spares tables "
        'of level 1; not with trap = "single-step".',
    )

    @property
    def spec(self) -> ShadowSpec:
        """The preset with what is given here in place of its own."""
        given = self.model_dump(exclude={"preset"}, exclude_none=True)
        if given.get("trap") == "single-step":
            given["write_flood"] = 0  # stores are made by the guest, and nobody counts them
        return SHADOW_PRESETS[self.preset].model_copy(update=given)

    def changed(self) -> Iterator[str]:
        """Yield the keys whose values are not what the default preset says."""
        default = SHADOW_PRESETS["kvm"]
        for key, value in self:
            if value not in (None, "kvm" if key == "preset" else getattr(default, key)):
                yield key

    @model_validator(mode="after")
    def _check(self) -> ShadowTable:
        raise_problems(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        spec = self.spec
        if spec.ad == "read-sync" and spec.hide == "write-protect":
            text = 'read-sync needs loads that trap, and hide = "write-protect" traps stores only'
            yield Problem(("ad",), f'{text}; choose hide = "user-bit", or ad = "write-protect"')
        elif spec.ad == "read-sync" and spec.trap == "unsync":
            text = 'read-sync needs loads that trap, and trap = "unsync" leaves tables to the guest'
            yield Problem(("ad",), f'{text}; choose trap = "emulate", or ad = "write-protect"')
        if spec.trap == "single-step" and self.write_flood:
            text = f'{self.write_flood} would do nothing with trap = "single-step", which counts no stores'
            yield Problem(("write_flood",), f'{text}; leave it out, or choose trap = "emulate" or "unsync"')
        if spec.trap != "single-step" and self.step not in (None, SHADOW_PRESETS[self.preset].step):
            text = f'"{self.step}" would do nothing with trap = "{spec.trap}", which steps over no store'
            yield Problem(("step",), f'{text}; leave it out, or choose trap = "single-step"')


class SoftwareTlb(ModeTable):
    """``[vm.software_tlb]``: the TLB of the monitor's own walks of guest tables, flushed at CR3 loads."""

    about = "The monitor's own TLB in mode shadow."

    entries: Entries = Field(default=0, description="Pages it remembers; 0: there is none.")


class Shadowing(NamedTuple):
    """What a monitor that shadows is told; `entries` are those of its own TLB."""

    spec: ShadowSpec
    entries: int


class LoggedByProtection(PagingMode):
    """A mode whose dirty log is kept by write protection, in a shadow at least.

    Attributes
    ----------
    unmarked : str
        Where its walks set no dirty flags of the host's.
    """

    unmarked: ClassVar[str]
    ignores = frozenset({"tdp_mmu"})  # a shadow's faults take KVM's lock to write

    def log_problems(self, vm: VmKeys) -> Iterator[Problem]:
        """Yield why no dirty log can be kept as its table says."""
        yield from super().log_problems(vm)
        why = {
            "pml": "the page-modification log notes pages whose dirty flag a walk of EPT sets (SDM vol. 3C §30.3.6), "
            f"and in mode {self.name} {self.unmarked}",
            "ad-scan": "dirty flags in a shadow are the guest's, to be brought to its own entries (shadow.ad), and KVM "
            "looks for none: it protects (arch/x86/kvm/mmu/mmu.c, kvm_mmu_slot_remove_write_access)",
        }.get(vm.dirty_log.method)
        if why:
            yield Problem(("dirty_log", "method"), f'{why}; expected "write-protect"')


class _Shadow(LoggedByProtection):
    name = "shadow"
    label = "shadow"
    tables: ClassVar = {"shadow": ShadowTable, "software_tlb": SoftwareTlb}
    refuses = ("host_levels",)
    guest_levels = (2, 3, 4, 5)
    host_levels = ()
    features = frozenset({"dirty_log", "nx_split"})
    whole_by_guest = True
    unmarked = "no walk of a page that is logged sets one"
    automatic = True
    apart = "tag"
    build = "vmsim.monitor.shadow.build:build"
    rehearsal: ClassVar = {"shadow": {"preset": "plex86", "fill": "eager"}}

    def kernel_problems(self, vm: VmKeys) -> Iterator[Problem]:
        if vm.table(ShadowTable).spec.hide == "user-bit":
            text = (
                "tables hidden by the user bit are hidden from programs alone, and the kernel's accesses are at CPL 0"
            )
            yield Problem(("kernel_accesses",), f"{text}; expected shadow.hide of write-protect or present-bit")

    def suits(self, has: Features | None, cpu: str, listed: tuple[str, ...]) -> str | None:
        if has is None:
            return f"the file of {cpu} lists neither npt nor ept (it gives no CPUID registers)"
        if has.svm:
            missing = "SVM but no nested paging (CPUID 8000_000A EDX[0] is 0)"
        elif has.vmx:
            missing = "VMX but no EPT (MSR 48Bh bit 33 or 48Ch bit 6 is 0)"
        else:
            return None
        return f"{cpu} has {missing}: its page tables are shadowed in software"

    def log_problems(self, vm: VmKeys) -> Iterator[Problem]:
        yield from super().log_problems(vm)
        if vm.dirty_log.method != "none" and vm.dirty_log.split == "eager":
            text = "KVM splits large pages eagerly in nested tables alone (mmu.c, kvm_mmu_slot_try_split_huge_pages)"
            yield Problem(("dirty_log", "split"), f'{text}; expected "lazy"')
        if vm.dirty_log.method != "none" and vm.dirty_log.split == "one":
            text = "a shadow is filled page by page, whatever is split (paging_tmpl.h, FNAME(fetch))"
            yield Problem(("dirty_log", "split"), f'{text}; expected "lazy"')

    def walked_levels(self, guest_levels: int) -> int:
        return max(guest_levels, 3)  # KVM's shadows have entries of 8 bytes: those of 32-bit guests are PAE's

    def settings(self, vm: VmKeys, cpu: Cpu) -> Shadowing:
        return Shadowing(vm.table(ShadowTable).spec, vm.table(SoftwareTlb).entries)

    def records(self, own: Shadowing, pages: int) -> int:
        return pages * GFN_BYTES + own.spec.limit * SHADOW_PAGE_BYTES

    def canonical(self, own: Shadowing) -> dict[str, Any]:
        return {"shadow": dict(own.spec), "software_tlb": own.entries}


SHADOW: Final = _Shadow()
