"""Demotion in a scenario: the table ``[host.demotion]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from pydantic import Field

from vmsim.scenario.daemons import HostDaemon, HostTable
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import Flag, Fraction01

__all__ = ["DEMOTION", "LISTS", "Demotion"]

LISTS: Final = "two-list"
"""Which pages are cold: those of a node that would be reclaimed first."""


class Demotion(HostTable):
    """What a node does that is short of memory, and has slower memory below it."""

    about = "Cold pages go to slower memory when a node is short of memory (Linux's demotion, and TPP)."

    enabled: Flag = Field(default=False, description="Whether they do (/sys/kernel/mm/numa/demotion_enabled).")
    scale_factor: Fraction01 = Field(
        default=0.0,
        description="Share of a node that is kept free for new pages, whatever other nodes have (TPP's "
        "demote_scale_factor, 0.02 there). 0: as Linux, which begins when every node is short, or a promotion finds "
        "no room.",
    )


class _Demotion(HostDaemon):
    name = "demotion"
    table = Demotion
    build = "vmsim.host.daemons.demotion.daemon:build"

    def runs(self, table: Demotion) -> bool:
        return table.enabled

    def policies(self, table: Demotion) -> tuple[str, ...]:
        return (LISTS,)

    def problems(self, table: Demotion, vms: Sequence[VmKeys]) -> Iterator[Problem]:
        if not table.enabled and table.scale_factor:
            yield Problem(("scale_factor",), "it has no effect without demotion.enabled")

    def host_problems(self, table: Demotion, host: Any) -> Iterator[Problem]:
        if table.enabled and all(node.cpus for node in host.nodes):
            text = "there is no slower memory to go to; expected a node without CPUs in host.nodes"
            yield Problem(("enabled",), text)

    def canonical(self, table: Demotion) -> dict[str, Any]:
        return table.model_dump()


DEMOTION: Final = _Demotion()
