"""Workload bounce: reads of the first and the last page of a region by turns."""

from typing import ClassVar, Literal

from pydantic import Field

from vmsim.scenario.types import Rounds
from vmsim.scenario.workload import Generator


class Bounce(Generator):
    """Reads of the first and the last page of a region by turns."""

    kind: Literal["bounce"]
    rounds: Rounds = Field(description="Turns, of two accesses each.")

    stream: ClassVar = "prefault.streams:bounce"
    lasts: ClassVar = "rounds"
