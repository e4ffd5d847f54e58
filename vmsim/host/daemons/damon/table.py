"""DAMON in a scenario: the table ``[host.damon]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, Strict

from vmsim.base.units import parse_duration
from vmsim.scenario.daemons import HostDaemon, HostTable
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.nodes import MAX_NODES
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import Count, DurationField, Size

__all__ = ["DAMON", "Damon"]

_NONE: Final = "none"
_MIGRATES: Final = ("migrate_cold", "migrate_hot")
_Regions = Annotated[int, Strict(), Field(ge=3, le=100_000)]


def _time(text: str, description: str) -> Any:
    return Field(default=parse_duration(text), description=description, json_schema_extra={"default": text})


class Damon(HostTable):
    """What kdamond is told: the names are those of /sys/kernel/mm/damon/admin."""

    about = "Samples say which regions of memory are accessed, and what is done to those of a kind (Linux's DAMON)."

    action: Literal["none", "stat", "pageout", "migrate_cold", "migrate_hot"] = Field(
        default=_NONE,
        description="What is done to regions that fit the scheme. none: DAMON does not run. stat: they are counted. "
        "pageout: their pages go to the swap device. migrate_cold, migrate_hot: to a node, the coldest or hottest of "
        "them first where there is a quota.",
    )
    sample_interval: DurationField = _time("5ms", "Between clearing a page's accessed flag and looking at it.")
    aggr_interval: DurationField = _time("100ms", "For which accesses of a region are counted.")
    min_nr_regions: _Regions = Field(default=10, description="No region is larger than all memory by so many.")
    max_nr_regions: _Regions = Field(default=1000, description="Regions are split only while there are half as many.")
    min_size: Size = Field(default=4096, description="Of regions that fit the scheme.")
    min_accesses: Count = Field(default=0, description="Samples in which one was accessed, at least.")
    max_accesses: Count | None = Field(default=None, description="At most; the default is 0, of migrate_hot any.")
    min_age: Count = Field(default=0, description="Aggregations for which its accesses have been much the same.")
    target: Annotated[int, Strict(), Field(ge=0, lt=MAX_NODES)] | None = Field(
        default=None, description="migrate_cold, migrate_hot: the node."
    )
    quota: Size | None = Field(default=None, description="Memory to which the action is applied in an interval.")
    quota_interval: DurationField = _time("1s", "That interval.")

    @property
    def most_accesses(self) -> int | None:
        """Samples in which a region was accessed at most; None: any."""
        return self.max_accesses if self.action == "migrate_hot" or self.max_accesses is not None else 0


class _Damon(HostDaemon):
    name = "damon"
    table = Damon
    build = "vmsim.host.daemons.damon.daemon:build"

    def runs(self, table: Damon) -> bool:
        return table.action != _NONE

    def problems(self, table: Damon, vms: Sequence[VmKeys]) -> Iterator[Problem]:
        if not self.runs(table):
            for key, field in Damon.model_fields.items():
                if getattr(table, key) != field.default:
                    yield Problem((key,), "it has no effect without damon.action")
            return
        if not table.sample_interval.amount:
            yield Problem(("sample_interval",), "no time between two samples; expected more than 0")
        if table.sample_interval.unit == table.aggr_interval.unit and (
            table.aggr_interval.amount < table.sample_interval.amount
        ):
            yield Problem(("aggr_interval",), "it is shorter than damon.sample_interval")
        if table.max_nr_regions < table.min_nr_regions:
            yield Problem(("max_nr_regions",), f"it is less than damon.min_nr_regions ({table.min_nr_regions})")
        if (most := table.most_accesses) is not None and most < table.min_accesses:
            yield Problem(("max_accesses",), f"found {most}, and damon.min_accesses is {table.min_accesses}")
        if table.action in _MIGRATES and table.target is None:
            yield Problem(("target",), f"this key is missing; {table.action} needs the node that pages go to")
        elif table.action not in _MIGRATES and table.target is not None:
            yield Problem(("target",), f"it has no effect with damon.action = {table.action!r}; leave it out")
        if table.quota is None and table.quota_interval != Damon.model_fields["quota_interval"].default:
            yield Problem(("quota_interval",), "it has no effect without damon.quota")

    def host_problems(self, table: Damon, host: Any) -> Iterator[Problem]:
        if table.target is not None and table.target >= len(host.nodes):
            yield Problem(("target",), f"found {table.target}, and the host has {len(host.nodes)} nodes (host.nodes)")
        if table.action == "pageout" and host.part("swap").device == _NONE:
            yield Problem(("action",), "there is nowhere for pages to go; expected a host.swap.device")

    def canonical(self, table: Damon) -> dict[str, Any]:
        return table.model_dump() | {"max_accesses": table.most_accesses}


DAMON: Final = _Damon()
