"""NUMA balancing in a scenario: the table ``[host.numa_balancing]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from pydantic import Field

from vmsim.base.units import PAGE, parse_duration
from vmsim.scenario.daemons import HostDaemon, HostTable
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.nodes import MIGRATED
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import DurationField, Size

__all__ = ["NUMA_BALANCING", "NumaBalancing"]

_OFF: Final = "off"
_OF_TIERS: Final = ("hot_threshold", "promote_rate_limit")


def _time(text: str, description: str) -> Any:
    return Field(default=parse_duration(text), description=description, json_schema_extra={"default": text})


class NumaBalancing(HostTable):
    """What Linux calls so: kernel.numa_balancing, and /sys/kernel/debug/sched/numa_balancing."""

    about = "Pages are moved to the node that uses them, or to faster memory (Linux's NUMA balancing)."

    mode: Literal["off", "normal", "tiering", "both"] = Field(
        default=_OFF,
        description="normal: pages of any node go to the socket that uses them twice in turn. tiering: hot pages of "
        "slower memory go to the socket that uses them. both: both (numa_balancing of 1, 2, 3).",
    )
    scan_delay: DurationField = _time("1s", "From a VM's start to its first scan (scan_delay_ms).")
    scan_period_min: DurationField = _time("1s", "The shortest time between two scans of a VM (scan_period_min_ms).")
    scan_period_max: DurationField = _time("60s", "The longest, and how often the threshold is adjusted.")
    scan_size: Size = Field(default=256 << 20, description="Memory that a scan marks at most (scan_size_mb).")
    hot_threshold: DurationField = _time(
        "1s", "tiering: a page is hot that is used within this time after a scan (hot_threshold_ms); adjusted."
    )
    promote_rate_limit: Size = Field(
        default=65536 << 20,
        description="tiering: memory that is promoted in a second at most (numa_balancing_promote_rate_limit_MBps).",
    )

    @property
    def normal(self) -> bool:
        """Whether pages go to the socket that uses them."""
        return self.mode in ("normal", "both")

    @property
    def tiering(self) -> bool:
        """Whether hot pages of slower memory are promoted."""
        return self.mode in ("tiering", "both")


class _NumaBalancing(HostDaemon):
    name = "numa_balancing"
    table = NumaBalancing
    build = "vmsim.host.daemons.numa_balancing.daemon:build"

    def runs(self, table: NumaBalancing) -> bool:
        return table.mode != _OFF

    def problems(self, table: NumaBalancing, vms: Sequence[VmKeys]) -> Iterator[Problem]:
        if not self.runs(table):
            if any(vm.numa.tables == MIGRATED for vm in vms):
                text = 'nobody moves the tables of a VM with numa.tables = "migrate"; expected "normal" or another'
                yield Problem(("mode",), text)
            for key, field in NumaBalancing.model_fields.items():
                if getattr(table, key) != field.default:
                    yield Problem((key,), "it has no effect without numa_balancing.mode")
            return
        for key in () if table.tiering else _OF_TIERS:
            if getattr(table, key) != NumaBalancing.model_fields[key].default:
                yield Problem((key,), f'it has no effect with numa_balancing.mode = "{table.mode}"; leave it out')
        if not table.scan_period_min.amount:
            yield Problem(("scan_period_min",), "no time between two scans; expected more than 0")
        for key in ("scan_size", *(["promote_rate_limit"] if table.tiering else ())):
            if getattr(table, key) < PAGE:
                yield Problem((key,), "it is less than a page of 4KiB")

    def host_problems(self, table: NumaBalancing, host: Any) -> Iterator[Problem]:
        if self.runs(table) and len(host.nodes) < 2:
            yield Problem(("mode",), "there is one node only; expected two or more in host.nodes")
        elif table.mode == "tiering" and all(node.cpus for node in host.nodes):
            yield Problem(("mode",), "there is no slower memory to promote from; expected a node without CPUs")

    def canonical(self, table: NumaBalancing) -> dict[str, Any]:
        return table.model_dump(exclude=None if table.tiering else {*_OF_TIERS})


NUMA_BALANCING: Final = _NumaBalancing()
