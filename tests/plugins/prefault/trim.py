"""Daemon trim and policy highest, as a scenario knows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from vmsim.scenario.daemons import HostDaemon, HostTable, Policy
from vmsim.scenario.problems import Problem


class Trim(HostTable):
    """``[host.trim]``."""

    about = "How far daemon trim cuts each VM down."

    pages: int = Field(default=0, ge=0, description="Pages that a VM keeps when it is trimmed; 0: it is not.")
    every: int = Field(default=100_000, ge=1, description="Cycles between two rounds.")


class _Trim(HostDaemon):
    name = "trim"
    table = Trim
    build = "prefault.trimmer:build"

    def runs(self, table: Trim) -> bool:
        return table.pages > 0

    def policies(self, table: Trim) -> tuple[str, ...]:
        return ("highest",)

    def problems(self, table: Trim, vms: Any) -> Iterator[Problem]:
        if table.pages and (small := [vm.name for vm in vms if vm.memory >> 12 < table.pages]):
            yield Problem(("pages",), f"VM {small[0]} has fewer pages in all")


class Highest(HostTable):
    """``[host.highest]``."""

    about = "What policy highest leaves alone."

    skip: int = Field(default=0, ge=0, description="The highest frames that are left alone.")


class _Highest(Policy):
    name = "highest"
    about = "The guest's highest frame, but for a few."
    table = Highest
    build = "prefault.trimmer:highest"


TRIM = _Trim()
HIGHEST = _Highest()
