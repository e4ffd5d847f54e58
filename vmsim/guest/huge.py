"""Huge pages that a guest's kernel gives its programs by itself (THP): where, and what it counts of them.

Linux: mm/huge_memory.c, mm/khugepaged.c; Documentation/admin-guide/mm/transhuge.rst.
"""

from __future__ import annotations

from collections import Counter

from vmsim.base.ledger import Ledger
from vmsim.guest.region_rows import HUGE, KINDS, NOT_HUGE
from vmsim.scenario.thp import ThpSpec

__all__ = ["HugePages"]

_COUNTED = ("thp_fault_alloc", "thp_fault_fallback", "thp_collapse_alloc", "thp_collapse_alloc_failed", "thp_split_pmd")


class HugePages:
    """The huge pages of one kernel.

    Parameters
    ----------
    spec : ThpSpec
        What it is told.

    Attributes
    ----------
    counts : Counter
        As of /proc/vmstat: huge pages mapped at a fault (`thp_fault_alloc`), small ones in their place because no block
        was free (`thp_fault_fallback`), those that khugepaged made and had no block for (`thp_collapse_alloc`,
        `thp_collapse_alloc_failed`), entries that were split (`thp_split_pmd`).
    """

    def __init__(self, spec: ThpSpec) -> None:
        self.spec = spec
        self.counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))

    def allowed(self, kind: int) -> bool:
        """Whether a region of a kind (-1: what lies outside every region) may have them (thp_vma_allowable_order).

        Anonymous private memory may: of files and of shared memory there are none (shmem_enabled is "never").
        """
        kind = max(kind, 0)
        if kind & (KINDS | NOT_HUGE):
            return False
        return not self.spec.advised or kind & HUGE != 0

    def compacts(self, kind: int) -> bool:
        """Whether a fault in a region of a kind compacts memory where no block is free."""
        return self.spec.compacts(advised=max(kind, 0) & HUGE != 0)

    def wakes(self, kind: int) -> bool:
        """Whether it wakes kcompactd instead."""
        return self.spec.wakes(advised=max(kind, 0) & HUGE != 0)

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        ledger.counters("thp", lambda: self.counts)
