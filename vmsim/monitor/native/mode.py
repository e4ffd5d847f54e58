"""Mode native in a scenario: a program on the host itself, with one dimension of page tables."""

from __future__ import annotations

from typing import Final

from vmsim.scenario.cpuid import Features
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.modes import PagingMode

__all__ = ["NATIVE"]


class _Native(PagingMode):
    name = "native"
    label = "native"
    needs = ("native",)
    hardware = True
    ignores = frozenset({"fill_chunk", "fragmentation", "kernel_accesses", "pool", "shares", "table_span", "tdp_mmu"})
    refuses = ("host_page", "host_levels", "tags", "balloon")
    guest_levels = (2, 3, 4, 5)
    unlogged = "no monitor stands between a program and its memory"

    def bare(self, vm: VmKeys) -> bool:
        return True

    def offered(self, has: Features) -> bool:
        return True


NATIVE: Final = _Native()
