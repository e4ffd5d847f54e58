"""The table ``[vm.agile]``: when a monitor under agile paging moves a guest's tables."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Strict

from vmsim.base.units import parse_duration
from vmsim.scenario.types import DurationField, Entries, Model

__all__ = ["AgileSpec"]


class AgileSpec(Model):
    """``[vm.agile]``. The defaults are those of Gandhi, Hill and Swift (ISCA 2016), from memory."""

    threshold: Annotated[int, Strict(), Field(ge=1, le=10_000)] = Field(
        default=2, description="Stores to a table in an interval that leave it, and what is below, to nested walks."
    )
    interval: DurationField = Field(
        default=parse_duration("1s"),
        description="Time after which tables go back to the shadow.",
        json_schema_extra={"default": "1s"},
    )
    back: Literal["clean", "all"] = Field(
        default="clean", description="clean: those go back that were not stored to in the interval. all: all of them."
    )
    root_cache: Entries = Field(
        default=0, description="Roots whose shadow the hardware finds by itself at a load of CR3; 0: each is an exit."
    )
