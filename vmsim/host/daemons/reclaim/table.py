"""The reclaimer in a scenario: the table ``[host.reclaim]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from pydantic import Field

from vmsim.scenario.daemons import HostDaemon, HostTable, policy_problem
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.problems import Problem

__all__ = ["RECLAIM", "Reclaim"]

_RANDOM: Final = "random"


class Reclaim(HostTable):
    """A reclaimer that takes pages of living VMs at a steady rate, and lets them come back when they are used."""

    about = "Pages that the host takes from living VMs."

    rate: int = Field(default=0, ge=0, le=1_000_000_000, description="Pages taken in a second; 0: none.")
    batch: int = Field(default=1, ge=1, le=1 << 20, description="Pages taken at a time.")
    policy: str = Field(
        default=_RANDOM,
        description="Which pages are taken. random: any. clock: those not accessed since they were last looked at.",
    )


class _Reclaim(HostDaemon):
    name = "reclaim"
    table = Reclaim
    build = "vmsim.host.daemons.reclaim.daemon:build"

    def runs(self, table: Reclaim) -> bool:
        return table.rate > 0

    def policies(self, table: Reclaim) -> tuple[str, ...]:
        return (table.policy,)

    def problems(self, table: Reclaim, vms: Sequence[VmKeys]) -> Iterator[Problem]:
        if wrong := policy_problem(table.policy, "victims"):
            yield Problem(("policy",), wrong)
        if not table.rate:
            for key in ("batch", "policy"):
                if getattr(table, key) != Reclaim.model_fields[key].default:
                    yield Problem((key,), "it has no effect without reclaim.rate")

    def canonical(self, table: Reclaim) -> dict[str, Any]:
        return table.model_dump(exclude={"policy"} if table.policy == _RANDOM else None)


RECLAIM: Final = _Reclaim()
