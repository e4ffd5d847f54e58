"""Mode vkernel in a scenario: a guest is a process whose page tables the host's kernel walks in software."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

from vmsim.scenario.cpuid import Features
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.modes import PagingMode
from vmsim.scenario.problems import Problem

__all__ = ["VKERNEL"]


class _Vkernel(PagingMode):
    name = "vkernel"
    label = "vkernel"
    ignores = frozenset({"kernel_accesses", "tdp_mmu"})
    refuses = ("tags", "host_levels")
    tagged = False
    pcid = False
    costs = "vkernel_"
    automatic = True
    spaces = 1 << 12  # for which the host needs no tags
    guest_levels = (2, 3, 4, 5)
    host_levels = ()
    own_format = True
    unlogged = (
        "DragonFly's kernel makes a modified page clean where it writes it to its file, and nowhere else "
        "(sys/vm/vm_object.c, vm_object_page_clean), so that nobody can ask what a vkernel has written to since"
    )
    build = "vmsim.monitor.vkernel.build:build"
    rehearsal: ClassVar = {}

    def problems(self, vm: VmKeys) -> Iterator[Problem]:
        if vm.tags is not None:
            text = "mode vkernel has no VM entries and exits to tag for: its guest is a process; leave tags out"
            yield Problem(("tags",), text)

    def kernel_problems(self, vm: VmKeys) -> Iterator[Problem]:
        if vm.mode == "auto":  # else the key has no effect at all
            text = 'mode "auto" is vkernel on this CPU, where the kernel is a process without a map of all memory'
            yield Problem(("kernel_accesses",), f"{text}; choose another mode")

    def entries(self, *, bare: bool) -> int:
        return 3

    def suits(self, has: Features | None, cpu: str, listed: tuple[str, ...]) -> str | None:
        missing = "neither SVM (CPUID 8000_0001 ECX[2]) nor VMX (CPUID 1 ECX[5])"
        return f"{cpu} has {missing}: guests are processes, their page tables walked in software"


VKERNEL: Final = _Vkernel()
