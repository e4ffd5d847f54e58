"""Modes ept and npt in a scenario: two-dimensional paging by the processor of either vendor."""

from __future__ import annotations

from typing import Final

from vmsim.scenario.cpu import Cpu
from vmsim.scenario.cpuid import Features
from vmsim.scenario.modes import PagingMode

__all__ = ["EPT", "NPT", "Ept", "Npt"]


class Ept(PagingMode):
    """Intel's extended page tables."""

    name = "ept"
    label = "EPT"
    needs = ("ept",)
    hardware = True
    vendor = "intel"
    guest_levels = (2, 3, 4, 5)
    features = frozenset({"dirty_log", "nx_split"})
    automatic = True
    build = "vmsim.monitor.tdp.build:ept"

    def by_ept(self, cpu: Cpu) -> bool:
        """Return whether its nested tables have the format of EPT."""
        return True

    def offered(self, has: Features) -> bool:
        """Return whether a processor with these features has it."""
        return has.ept

    def suits(self, has: Features | None, cpu: str, listed: tuple[str, ...]) -> str | None:
        """Return why ``mode = "auto"`` may stand for it on a CPU, None if it may not."""
        if has is None:
            return f"the file of {cpu} lists ept (it gives no CPUID registers)" if "ept" in listed else None
        return f"{cpu} has VMX (CPUID 1 ECX[5]) and EPT (MSR 48Bh bit 33, 48Ch bit 6)" if has.ept else None


class Npt(PagingMode):
    """AMD's nested page tables."""

    name = "npt"
    label = "NPT"
    needs = ("npt",)
    hardware = True
    vendor = "amd"
    guest_levels = (2, 3, 4, 5)
    host_levels = (2, 3, 4, 5)
    features = frozenset({"dirty_log", "nx_split"})
    pdpte_registers = False
    automatic = True
    build = "vmsim.monitor.tdp.build:npt"

    def offered(self, has: Features) -> bool:
        """Return whether a processor with these features has it."""
        return has.npt

    def suits(self, has: Features | None, cpu: str, listed: tuple[str, ...]) -> str | None:
        """Return why ``mode = "auto"`` may stand for it on a CPU, None if it may not."""
        if has is None:
            return f"the file of {cpu} lists npt (it gives no CPUID registers)" if "npt" in listed else None
        if not has.npt:
            return None
        return f"{cpu} has SVM (CPUID 8000_0001 ECX[2]) and nested paging (8000_000A EDX[0])"


EPT: Final = Ept()
NPT: Final = Npt()
