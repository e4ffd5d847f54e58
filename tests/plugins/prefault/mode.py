"""Mode prefault: EPT whose monitor maps a window of pages at a violation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from vmsim.monitor.tdp.mode import Ept
from vmsim.scenario.cpu import Cpu
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.modes import ModeTable
from vmsim.scenario.problems import Problem


class Window(ModeTable):
    """``[vm.prefault]``."""

    about = "What mode prefault maps at a violation."

    pages: int = Field(default=8, ge=1, le=512, description="Pages that are mapped at a violation.")


class Prefault(Ept):
    """EPT, a window at a time."""

    name = "prefault"
    label = "prefault"
    hardware = False
    tables: ClassVar = {"prefault": Window}
    ignores = frozenset({"fill_chunk"})
    features = frozenset()
    automatic = False
    build = "prefault.build:build"

    def problems(self, vm: VmKeys) -> Iterator[Problem]:
        if vm.table(Window).pages << 12 > vm.memory:
            yield Problem(("prefault", "pages"), "a window is larger than the VM's memory")

    def runs_on(self, cpu: Cpu) -> bool:
        return "ept" in cpu.modes


PREFAULT = Prefault()
