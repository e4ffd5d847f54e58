"""KSM in a scenario: the table ``[host.ksm]``, whose keys are those of ``/sys/kernel/mm/ksm``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, Strict

from vmsim.scenario.daemons import HostDaemon, HostTable
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import Flag

__all__ = ["KSM", "Ksm"]

_Count = Annotated[int, Strict(), Field(ge=1, le=1 << 40)]
_Many = Annotated[int, Strict(), Field(ge=0, le=1 << 40)]


class Ksm(HostTable):
    """A daemon that looks for equal pages, and has them share a frame until they are written to."""

    about = "Equal pages that the host has share a frame, as Linux's KSM does."

    run: Literal[0, 1] = Field(default=0, description="1: ksmd runs.")
    pages_to_scan: _Count = Field(default=100, description="Pages looked at before ksmd sleeps.")
    sleep_millisecs: _Many = Field(default=20, description="Milliseconds that it sleeps.")
    max_page_sharing: Annotated[int, Strict(), Field(ge=2, le=1 << 40)] = Field(
        default=256, description="Pages that share a frame at most; more get another frame of the same content."
    )
    use_zero_pages: Flag = Field(default=False, description="Pages of zeros share one frame, however many they are.")
    smart_scan: Flag = Field(
        default=True, description="Pages that found no equal for some rounds are left out of the next 1 to 8."
    )
    advisor_mode: Literal["none", "scan-time"] = Field(
        default="none", description="scan-time: pages_to_scan follows from how long a full scan is to take."
    )
    advisor_max_cpu: Annotated[int, Strict(), Field(ge=1, le=100)] = Field(
        default=70, description="Advisor: per cent of a CPU that ksmd may take."
    )
    advisor_target_scan_time: _Count = Field(default=200, description="Advisor: seconds that a full scan is to take.")
    advisor_min_pages_to_scan: _Count = Field(default=500, description="Advisor: pages_to_scan to begin with.")
    advisor_max_pages_to_scan: _Count = Field(default=30_000, description="Advisor: pages_to_scan at most.")


class _Ksm(HostDaemon):
    name = "ksm"
    table = Ksm
    build = "vmsim.host.daemons.ksm.daemon:build"

    def runs(self, table: Ksm) -> bool:
        return table.run == 1

    def problems(self, table: Ksm, vms: Sequence[VmKeys]) -> Iterator[Problem]:
        given = [key for key, field in Ksm.model_fields.items() if getattr(table, key) != field.default]
        for key in given:
            if not table.run:
                yield Problem((key,), "it has no effect without ksm.run = 1")
            elif key.startswith("advisor_") and key != "advisor_mode" and table.advisor_mode == "none":
                yield Problem((key,), 'it has no effect without ksm.advisor_mode = "scan-time"')
            elif key == "pages_to_scan" and table.advisor_mode != "none":
                yield Problem((key,), "the advisor sets it (ksm.advisor_mode); leave it out")
        if table.advisor_mode != "none" and table.advisor_min_pages_to_scan > table.advisor_max_pages_to_scan:
            yield Problem(("advisor_min_pages_to_scan",), "it is more than advisor_max_pages_to_scan")

    def canonical(self, table: Ksm) -> dict[str, Any]:
        found = {key: value for key, value in table.model_dump().items() if not key.startswith("advisor_")}
        if table.advisor_mode != "none":
            found = table.model_dump(exclude={"pages_to_scan"})
        return found


KSM: Final = _Ksm()
