"""The tables ``[vm.shadow]`` and ``[vm.software_tlb]``: how a monitor shadows a guest's page tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import Field, model_validator

from vmsim.scenario.problems import Problem, raise_problems
from vmsim.scenario.types import Entries, Model, Work

__all__ = ["SHADOW_PRESETS", "ShadowSpec", "ShadowTable", "SoftwareTlb"]

Fill = Literal["lazy", "eager"]
Trap = Literal["single-step", "emulate", "unsync"]
Step = Literal["trap-flag", "debug-register"]
Hide = Literal["write-protect", "user-bit", "present-bit"]
OnCr3 = Literal["flush", "cache"]
Ad = Literal["write-protect", "read-sync"]

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


class ShadowTable(Model):
    """``[vm.shadow]`` as it is written: a preset, and what differs from it."""

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


class SoftwareTlb(Model):
    """``[vm.software_tlb]``: the TLB of the monitor's own walks of guest tables, flushed at CR3 loads."""

    entries: Entries = Field(default=0, description="Pages it remembers; 0: there is none.")
