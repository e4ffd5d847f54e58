"""Transparent huge pages: what ``[vm.thp]`` says of a guest's kernel, and ``[host.thp]`` of the host's.

Names and defaults are those of ``/sys/kernel/mm/transparent_hugepage`` (Linux,
Documentation/admin-guide/mm/transhuge.rst), but for `enabled`, which is "never" here, and in a guest `defrag` and
`khugepaged`: off means off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, Strict

from vmsim.scenario.problems import Problem
from vmsim.scenario.types import Flag, Model

__all__ = ["Defrag", "GuestThp", "Khugepaged", "PtesField", "ThpKeys", "ThpSpec", "backs_huge"]

Defrag = Literal["always", "defer", "defer+madvise", "madvise", "never"]
PtesField = Annotated[int, Strict(), Field(ge=0, le=511)]
_Times = Annotated[int, Strict(), Field(ge=0, le=1 << 40)]


class Khugepaged(NamedTuple):
    """What a khugepaged is told: times in cycles, others in entries of 4 KiB pages.

    Attributes
    ----------
    pages : int
        Entries that are looked at before it sleeps.
    sleep, alloc_sleep : int
        How long it sleeps then, and after it has found no free block.
    none, swap, shared : int
        Entries of a range that may map nothing, or a page that is swapped out, or one that others map too.
    defrag : bool
        Memory is compacted for it.
    """

    pages: int
    sleep: int
    alloc_sleep: int
    none: int
    swap: int
    shared: int
    defrag: bool


class ThpSpec(NamedTuple):
    """What a kernel is told of huge pages, with nothing left to look up.

    Attributes
    ----------
    advised : bool
        Only memory that its program has advised gets them (``enabled = "madvise"``).
    defrag : str
        What is done at a fault where no block is free.
    khugepaged : Khugepaged or None
        None: it does not run.
    """

    advised: bool
    defrag: Defrag
    khugepaged: Khugepaged | None

    @property
    def works(self) -> bool:
        """Whether a guest's kernel does more for them than to map them at faults."""
        return self.khugepaged is not None or self.defrag != "never"

    def compacts(self, *, advised: bool) -> bool:
        """Whether a fault compacts memory itself; `advised`: in memory of which its program has said that it wants.

        Linux: mm/huge_memory.c, vma_thp_gfp_mask (__GFP_DIRECT_RECLAIM).
        """
        return self.defrag == "always" or (advised and self.defrag in ("madvise", "defer+madvise"))

    def wakes(self, *, advised: bool) -> bool:
        """Whether it wakes kcompactd instead (__GFP_KSWAPD_RECLAIM)."""
        return self.defrag == "defer" or (self.defrag == "defer+madvise" and not advised)


class ThpKeys(Model):
    """The keys that a guest and a host have both."""

    enabled: Literal["never", "madvise", "always"] = Field(
        default="never",
        description="Which memory gets pages of 2M at a fault, and from khugepaged: none, what its program asks for by "
        "madvise (a host's VMM does so for all memory of a guest, as QEMU), or all.",
    )
    defrag: Defrag = Field(
        default="madvise",
        description="What a fault does that finds no free block of 2M. always: compacts memory. defer: wakes "
        "kcompactd. madvise: compacts for advised memory. defer+madvise: that, and wakes kcompactd for other. In any "
        "case a page of 4K stands in for it where that does not help.",
    )
    khugepaged: Flag = Field(default=True, description="khugepaged runs, and puts pages of 2M in the place of others.")
    khugepaged_defrag: Flag = Field(
        default=True, description="khugepaged has memory compacted (khugepaged/defrag of Linux)."
    )
    pages_to_scan: Annotated[int, Strict(), Field(ge=1, le=1 << 40)] = Field(
        default=4096, description="Entries that khugepaged looks at before it sleeps."
    )
    scan_sleep_millisecs: _Times = Field(default=10_000, description="Milliseconds that it then sleeps.")
    alloc_sleep_millisecs: _Times = Field(
        default=60_000, description="Milliseconds that it sleeps where no block of 2M was to be had."
    )
    max_ptes_none: PtesField = Field(default=511, description="Entries of a range of 2M that may map nothing yet.")
    max_ptes_swap: PtesField = Field(default=64, description="Entries whose page may be swapped out.")
    max_ptes_shared: PtesField = Field(default=256, description="Entries whose page others may map too.")

    def spec(self, frequency: int) -> ThpSpec | None:
        """Return what it says for a CPU of `frequency` hertz; None: no page becomes huge."""
        if self.enabled == "never":
            return None
        sleep, alloc = (getattr(self, f"{which}_sleep_millisecs") * frequency // 1000 for which in ("scan", "alloc"))
        limits = self.max_ptes_none, self.max_ptes_swap, self.max_ptes_shared
        daemon = Khugepaged(self.pages_to_scan, sleep, alloc, *limits, self.khugepaged_defrag)
        return ThpSpec(self.enabled == "madvise", self.defrag, daemon if self.khugepaged else None)

    def idle(self) -> Iterator[Problem]:
        """Yield the keys that would do nothing."""
        given = [key for key, field in type(self).model_fields.items() if getattr(self, key) != field.default]
        for key in given:
            if self.enabled == "never":
                yield Problem((key,), "it has no effect without thp.enabled of always or madvise; leave it out")


def backs_huge(thp: ThpKeys | None, host_page: str, host_levels: int, *, bare: bool) -> bool:
    """Whether a host with a table backs a VM with huge pages by itself.

    Not where the scenario gives the size of the host's pages, where nothing is to be backed (`bare`), and where nested
    tables of 32-bit paging map 4 MiB in place of 2.
    """
    return thp is not None and thp.enabled != "never" and host_page == "4K" and host_levels != 2 and not bare


class GuestThp(ThpKeys):
    """``[vm.thp]``."""

    about: ClassVar[str] = "Huge pages that the guest's kernel gives its programs by itself (THP)."

    enabled: Literal["never", "madvise", "always"] = Field(
        default="never",
        description="Which memory gets pages of 2M at a fault, and from khugepaged: none, what its program asks for by "
        "madvise, or all.",
    )
    defrag: Defrag = Field(default="never", description="As of a host; advised is what a program asks for by madvise.")
    khugepaged: Flag = Field(
        default=False, description="The guest's khugepaged runs, and puts pages of 2M in the place of others."
    )
