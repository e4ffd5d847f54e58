"""Huge pages of the host's in a scenario: the table ``[host.thp]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from vmsim.scenario.daemons import HostDaemon, HostTable
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.problems import Problem
from vmsim.scenario.thp import ThpKeys

__all__ = ["THP", "HostThp"]


class HostThp(ThpKeys, HostTable):
    """What the host's kernel is told of huge pages for its guests' memory."""

    about = "Huge pages that the host backs its guests with by itself (THP)."


class _Thp(HostDaemon):
    name = "thp"
    table = HostThp
    build = "vmsim.host.daemons.thp.khugepaged:build"

    def runs(self, table: HostThp) -> bool:
        return table.enabled != "never"

    def problems(self, table: HostThp, vms: Sequence[VmKeys]) -> Iterator[Problem]:
        yield from table.idle()

    def canonical(self, table: HostThp) -> dict[str, Any]:
        return table.model_dump(include=None if table.khugepaged else {"enabled", "defrag", "khugepaged"})


THP: Final = _Thp()
