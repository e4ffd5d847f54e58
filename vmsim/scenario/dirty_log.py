"""The table ``[vm.dirty_log]``: how the host learns which pages of a VM are written to, as for its migration."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from vmsim.base.units import parse_duration
from vmsim.scenario.types import DurationField, Model

__all__ = ["DirtyLog", "DirtyLogSpec"]

Method = Literal["none", "write-protect", "ad-scan", "pml"]


class DirtyLogSpec(NamedTuple):
    """What a monitor is told of it; times in cycles.

    Attributes
    ----------
    every : int
        Between two readings of the log.
    stop : int
        After which logging ends; 0: never.
    """

    method: Method
    every: int
    stop: int
    split: Literal["lazy", "one", "eager"]


class DirtyLog(Model):
    """``[vm.dirty_log]``."""

    method: Method = Field(
        default="none",
        description="write-protect: the first write to a page exits. ad-scan: dirty flags are looked for. "
        "pml: the processor notes pages in a log of 512 entries, and exits when it is full.",
    )
    every: DurationField = Field(
        default=parse_duration("10ms"),
        description="How often the host reads the log.",
        json_schema_extra={"default": "10ms"},
    )
    stop: DurationField = Field(
        default=parse_duration("0s"),
        description="How long the VM is logged, from its start on; 0s: to its end. Pages that were split are then made "
        "large again.",
        json_schema_extra={"default": "0s"},
    )
    split: Literal["lazy", "one", "eager"] = Field(
        default="lazy",
        description="lazy: large host pages are split at the first write to them. one: so that the written page alone "
        "is mapped then, and each other when it is next accessed. eager: all are split at the start.",
    )

    def spec(self, frequency: int) -> DirtyLogSpec:
        """Return what it says for a CPU of `frequency` hertz."""
        return DirtyLogSpec(self.method, self.every.cycles(frequency), self.stop.cycles(frequency), self.split)
