"""What a scenario says of policy esx: the table ``[host.esx]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from pydantic import Field, Strict

from vmsim.base.units import parse_duration
from vmsim.scenario.daemons import HostTable, Policy
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import DurationField

__all__ = ["ESX", "Esx"]

_Percent = Annotated[float, Field(ge=0, le=100, strict=True)]


class Esx(HostTable):
    """``[host.esx]``."""

    about = "Policy esx: thresholds in percent of the host's memory, the idle memory tax, and how use is sampled."

    high: _Percent = Field(default=6.0, description="Free memory that all reclaim aims at.")
    soft: _Percent = Field(default=4.0, description="Below it balloons are inflated.")
    hard: _Percent = Field(default=2.0, description="Below it pages are taken to the swap device.")
    low: _Percent = Field(default=1.0, description="Below it VMs that have more than their part do not run either.")
    margin: _Percent = Field(
        default=10.0, description="How far above a threshold, in percent of it, the host is less short again."
    )
    idle_tax: Annotated[float, Field(ge=0, lt=100, strict=True)] = Field(
        default=75.0, description="Percent of idle memory that counts against its VM: 0 leaves shares alone."
    )
    sample_pages: Annotated[int, Strict(), Field(ge=1, le=100_000)] = Field(
        default=100, description="Pages of each VM that are watched at a time; a VM of fewer has all watched."
    )
    sample_period: DurationField = Field(
        default=parse_duration("30s"),
        description="For how long.",
        json_schema_extra={"default": "30s"},
    )
    sample_slow: Annotated[float, Field(gt=0, le=1, strict=True)] = Field(
        default=0.1, description="How much of a new figure enters the slow average."
    )
    sample_fast: Annotated[float, Field(gt=0, le=1, strict=True)] = Field(
        default=0.5, description="How much of it enters the fast one."
    )


class _Esx(Policy):
    name = "esx"
    about = "By shares, with a tax on idle memory: balloons first, then swap (VMware ESX, 2002)."
    chooses = "allotments"
    table = Esx
    build = "vmsim.host.policies.esx:build"
    weighs = True
    takes = True

    def problems(self, table: Esx, vms: Sequence[VmKeys]) -> Iterator[Problem]:
        if not table.low <= table.hard <= table.soft <= table.high:
            text = f"expected low ≤ hard ≤ soft ≤ high, found {table.low}, {table.hard}, {table.soft}, {table.high}"
            yield Problem(("high",), text)
        if not table.sample_period.amount:
            yield Problem(("sample_period",), "no time in which pages are watched; expected more than 0")


ESX: Final = _Esx()
