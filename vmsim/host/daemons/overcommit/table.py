"""The daemon in a scenario: the table ``[host.overcommit]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from pydantic import Field

from vmsim.base.units import parse_duration
from vmsim.scenario.daemons import HostDaemon, HostTable, policies, policy_problem
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import DurationField

__all__ = ["OVERCOMMIT", "Overcommit"]

_NONE: Final = "none"
_DEVICES: Final = ("balloon", "virtio_mem", "bilateral")  # tables of a VM that give a policy its size to set


class Overcommit(HostTable):
    """Who says how much of the host's memory each VM has."""

    about = "How much of the host's memory each VM has, where all together have been promised more than there is."

    policy: str = Field(
        default=_NONE,
        description="esx: by shares and by what is in use (Waldspurger 2002). mom: the rules of oVirt's Memory "
        "Overcommitment Manager. prorata: by the VMs' sizes. none: nobody asks for anything.",
    )
    every: DurationField = Field(
        default=parse_duration("10s"),
        description="How often it looks at the host.",
        json_schema_extra={"default": "10s"},
    )
    patience: DurationField = Field(
        default=parse_duration("1s"),
        description="esx: how long a balloon may lack pages and not grow before pages of its VM are taken instead.",
        json_schema_extra={"default": "1s"},
    )


class _Overcommit(HostDaemon):
    name = "overcommit"
    table = Overcommit
    build = "vmsim.host.daemons.overcommit.daemon:build"

    def runs(self, table: Overcommit) -> bool:
        return table.policy != _NONE

    def policies(self, table: Overcommit) -> tuple[str, ...]:
        return (table.policy,)

    def canonical(self, table: Overcommit) -> dict[str, Any]:
        usual = table.patience == Overcommit.model_fields["patience"].default
        return table.model_dump(exclude={"patience"} if usual else None)

    def problems(self, table: Overcommit, vms: Sequence[VmKeys]) -> Iterator[Problem]:
        ballooned = [each for each in vms if any(getattr(each, device).max for device in _DEVICES)]
        if table.policy == _NONE:
            for key in ("every", "patience"):
                if getattr(table, key) != Overcommit.model_fields[key].default:
                    yield Problem((key,), "it has no effect without overcommit.policy")
            if ballooned:
                table_of = next(device for device in _DEVICES if getattr(ballooned[0], device).max)
                text = f"vm.{ballooned[0].name}.{table_of}.max has no effect with {_NONE!r}; expected a policy"
                yield Problem(("policy",), text)
            return
        if wrong := policy_problem(table.policy, "allotments"):
            yield Problem(("policy",), wrong)
            return
        if not table.every.amount:
            yield Problem(("every",), "no time between two looks; expected more than 0")
        policy = policies()[table.policy]
        if not policy.takes and table.patience != Overcommit.model_fields["patience"].default:
            yield Problem(("patience",), f"{table.policy} has no other means than balloons; leave it out")
        if not (ballooned or policy.takes):
            text = f"{table.policy} works by balloons, and no VM lets it set the size of one (vm.balloon.max)"
            yield Problem(("policy",), text)
        if policy.asks and (silent := [each.name for each in ballooned if not each.balloon.statistics.amount]):
            text = f"{table.policy} needs to know what guests have free: set vm.{silent[0]}.balloon.statistics"
            yield Problem(("policy",), text)


OVERCOMMIT: Final = _Overcommit()
