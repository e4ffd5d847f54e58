"""The table ``[vm.bilateral]``: memory that the host takes from a guest's allocator itself, by huge frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final, NamedTuple

from pydantic import Field

from vmsim.base.units import PAGE, format_size, parse_duration
from vmsim.scenario.problems import Problem
from vmsim.scenario.schedule import Schedule, SizeOrNone, ascending
from vmsim.scenario.types import DurationField, Flag, Model

__all__ = ["HUGE", "Bilateral", "BilateralSpec"]

HUGE: Final = (2 << 20) // PAGE
"""Pages of a huge frame, of which host and guest share the state."""

_ACTS: Final = ("size", "schedule", "max", "soft")


class BilateralSpec(NamedTuple):
    """What a host does to a guest's allocator, with nothing left to look up: times in cycles, sizes in pages of 4 KiB.

    Attributes
    ----------
    steps : tuple of (int, int)
        Times since the VM's start, ascending, and what is to be taken from the guest by then.
    soft : bool
        The host takes the memory of what is free, which the guest may use again.
    every : int
        Between two looks at what is free.
    most : int
        The most that a policy of the host may take; 0: none does.
    """

    steps: tuple[tuple[int, int], ...]
    soft: bool
    every: int
    most: int

    @property
    def driver(self) -> bool:
        """Yes: no driver of the guest's could be missing."""
        return True


class Bilateral(Model):
    """``[vm.bilateral]``."""

    about: ClassVar[str] = "Memory that the host takes from the guest's allocator, whose state both share (HyperAlloc)."

    size: SizeOrNone = Field(
        default=0, description="Memory that the guest is not to have, from the VM's start on (hard reclamation)."
    )
    schedule: Schedule = ()
    max: SizeOrNone = Field(
        default=0, description="The most that the host's policy (host.overcommit.policy) may take so; 0: nothing."
    )
    soft: Flag = Field(
        default=False,
        description="The host takes the memory of huge frames that are free, which the guest may use again: it asks "
        "for memory first (soft reclamation).",
    )
    every: DurationField = Field(
        default=parse_duration("5s"),
        description="How often the host looks at what is free, to take it softly, or what still lacks of a size.",
        json_schema_extra={"default": "5s"},
    )

    @property
    def given(self) -> bool:
        """Whether host and guest share the allocator's state."""
        return any(getattr(self, key) for key in _ACTS)

    def spec(self, frequency: int) -> BilateralSpec | None:
        """Return what it says for a CPU of `frequency` hertz; None: host and guest share nothing."""
        if not self.given:
            return None
        steps = [(0, self.size), *((time.cycles(frequency), size) for time, size in self.schedule)]
        return BilateralSpec(
            steps=tuple((time, size // PAGE // HUGE * HUGE) for time, size in steps),
            soft=self.soft,
            every=max(1, self.every.cycles(frequency)),
            most=self.max // PAGE // HUGE * HUGE,
        )

    def problems(self, memory: int, *, bare: bool) -> Iterator[Problem]:
        """Yield what cannot be of a VM of so many bytes, and keys that would do nothing."""
        fields = type(self).model_fields
        given = [key for key, field in fields.items() if getattr(self, key) != field.default]
        if bare and given:
            text = "no allocator of a guest's kernel is there: the program runs on the host itself; leave it out"
            yield Problem((given[0],), text)
            return
        if "every" in given and not self.given:
            yield Problem(("every",), "it has no effect without bilateral.soft, size, schedule or max; leave it out")
        if not self.every.amount:
            yield Problem(("every",), "no time between two looks; expected more than 0")
        if not ascending(self.schedule):
            yield Problem(("schedule",), "its times are not in ascending order")
        sizes = [("size", self.size), ("max", self.max), *(("schedule", size) for _, size in self.schedule)]
        for key, size in sizes:
            if size >= memory:
                yield Problem((key,), f"{format_size(size)} of a VM of {format_size(memory)}: it needs some")
            elif 0 < size < HUGE * PAGE:
                yield Problem((key,), f"{format_size(size)} is less than a huge frame of {format_size(HUGE * PAGE)}")
        if self.max and (self.size or self.schedule):
            key = "size" if self.size else "schedule"
            yield Problem((key,), "the host's policy sets the size (bilateral.max); leave one of the two out")
