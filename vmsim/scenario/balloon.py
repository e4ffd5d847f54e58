"""The table ``[vm.balloon]``: memory that the host asks a VM's kernel to give back, by a virtio-balloon device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, Strict

from vmsim.base.units import PAGE, PAGE_ORDER, format_size, parse_duration
from vmsim.scenario.problems import Problem
from vmsim.scenario.schedule import Schedule, SizeOrNone, ascending
from vmsim.scenario.types import DurationField, Flag, Model

__all__ = ["Balloon", "BalloonSpec", "ReportingSpec"]

LARGEST_REPORTED = 10
"""Linux's MAX_PAGE_ORDER: no block of its allocator is larger (include/linux/mmzone.h)."""

_OF_SIZES = ("page", "message", "retry", "deflate_on_oom", "driver", "refuses")


class ReportingSpec(NamedTuple):
    """What a guest's kernel is told of free page reporting; the delay in cycles."""

    order: int
    delay: int


class BalloonSpec(NamedTuple):
    """What a balloon is told, with nothing left to look up: times in cycles, sizes in pages of 4 KiB.

    Attributes
    ----------
    steps : tuple of (int, int)
        Times since the VM's start, ascending, and sizes asked for then.
    order : int
        Of its pages: 0 or 9.
    statistics : int
        Between two requests for statistics; 0: none.
    reporting : ReportingSpec or None
        Of free pages.
    most : int
        The most that a policy of the host may ask for; 0: none does.
    refuses : int
        Above which size the driver puts nothing more into the balloon; -1: it never refuses.
    hinting : bool
        The guest says what is free while its dirty log is read.
    """

    steps: tuple[tuple[int, int], ...]
    order: int
    message: int
    retry: int
    deflate_on_oom: bool
    driver: bool
    statistics: int
    reporting: ReportingSpec | None
    most: int = 0
    refuses: int = -1
    hinting: bool = False

    @property
    def canonical(self) -> tuple[Any, ...]:
        """What matters: the last three only where they say anything."""
        unused = 0 if self.hinting else 1 if self.refuses >= 0 else 2 if self.most else 3
        return tuple(self)[: len(self) - unused]


class Balloon(Model):
    """``[vm.balloon]``."""

    about: ClassVar[str] = "Memory that the host asks the guest's kernel to give back (virtio-balloon)."

    size: SizeOrNone = Field(default=0, description="Memory that is to be in the balloon, from the VM's start on.")
    schedule: Schedule = ()
    max: SizeOrNone = Field(
        default=0, description="The most that the host's policy (host.overcommit.policy) may ask for; 0: nothing."
    )
    page: Literal["4K", "2M"] = Field(default="4K", description="Pages that the balloon consists of.")
    message: Annotated[int, Strict(), Field(ge=1, le=1 << 16)] = Field(
        default=256, description="Pages of a message from the guest's driver to the host."
    )
    retry: DurationField = Field(
        default=parse_duration("200ms"),
        description="How long the driver waits when the guest has no free page for it.",
        json_schema_extra={"default": "200ms"},
    )
    deflate_on_oom: Flag = Field(
        default=False, description="A guest that has no page left takes 256 out of the balloon before it gives up."
    )
    driver: Flag = Field(default=True, description="The guest has a driver; without one it gives nothing back.")
    refuses: SizeOrNone | None = Field(
        default=None,
        description="The size above which the driver puts nothing more into the balloon, whatever the host asks for: "
        "a guest that does not cooperate. Default: it never refuses.",
    )
    statistics: DurationField = Field(
        default=parse_duration("0s"),
        description="How often the host asks the guest what memory it has free; 0s: never.",
        json_schema_extra={"default": "0s"},
    )
    reporting: Flag = Field(
        default=False, description="The guest tells the host of blocks that have become free, which takes their memory."
    )
    reporting_order: Annotated[int, Strict(), Field(ge=0, le=LARGEST_REPORTED)] = Field(
        default=9, description="Smallest free blocks that are reported: 2**order pages of 4 KiB."
    )
    reporting_delay: DurationField = Field(
        default=parse_duration("2s"),
        description="How long after something was freed the guest begins to report.",
        json_schema_extra={"default": "2s"},
    )
    hinting: Flag = Field(
        default=False,
        description="The guest says which blocks are free whenever its dirty log is read, and holds them until logging "
        "ends: nobody needs to send them (dirty_log.method).",
    )

    @property
    def asks(self) -> bool:
        """Whether the host ever asks for memory."""
        return self.size > 0 or self.max > 0 or any(size for _, size in self.schedule)

    @property
    def given(self) -> bool:
        """Whether there is a device."""
        return self.asks or self.reporting or self.hinting or self.statistics.amount > 0

    def spec(self, frequency: int) -> BalloonSpec | None:
        """Return what it says for a CPU of `frequency` hertz; None: there is no device."""
        if not self.given:
            return None
        order = PAGE_ORDER[self.page]
        steps = [(0, self.size), *((time.cycles(frequency), size) for time, size in self.schedule)]
        return BalloonSpec(
            steps=tuple((time, size // PAGE >> order << order) for time, size in steps),
            order=order,
            message=self.message,
            retry=max(1, self.retry.cycles(frequency)),
            deflate_on_oom=self.deflate_on_oom,
            driver=self.driver,
            statistics=self.statistics.cycles(frequency),
            reporting=ReportingSpec(self.reporting_order, max(1, self.reporting_delay.cycles(frequency)))
            if self.reporting
            else None,
            most=self.max // PAGE >> order << order,
            refuses=-1 if self.refuses is None else self.refuses // PAGE >> order << order,
            hinting=self.hinting,
        )

    def problems(self, memory: int, *, logged: bool) -> Iterator[Problem]:
        """Yield what it cannot ask of a VM of so many bytes, and keys that would do nothing.

        `logged` says whether the VM has a dirty log.
        """
        fields = type(self).model_fields
        given = [key for key, field in fields.items() if getattr(self, key) != field.default]
        if not self.asks:
            for key in _OF_SIZES:
                if key in given:
                    text = "it has no effect without balloon.size, balloon.schedule or balloon.max; leave it out"
                    yield Problem((key,), text)
        for key in ("reporting_order", "reporting_delay"):
            if key in given and not self.reporting:
                yield Problem((key,), "it has no effect with balloon.reporting = false; leave it out")
        if self.hinting and not logged:
            yield Problem(("hinting",), 'it has no effect with dirty_log.method = "none"; leave it out')
        for key in ("reporting", "hinting", "statistics", "page", "message", "retry", "deflate_on_oom", "refuses"):
            if key in given and self.asks and not self.driver:
                yield Problem((key,), "it has no effect with balloon.driver = false; leave it out")
        for key in ("size", "schedule"):
            if key in given and self.max:
                yield Problem((key,), "the host's policy sets the size (balloon.max); leave one of the two out")
        if not ascending(self.schedule):
            yield Problem(("schedule",), "its times are not in ascending order")
        least = PAGE << PAGE_ORDER[self.page]
        for key, size in (("size", self.size), ("max", self.max), *(("schedule", size) for _, size in self.schedule)):
            if size >= memory:
                text = f"{format_size(size)} of a VM of {format_size(memory)}: nothing would be left of it"
                yield Problem((key,), text)
            elif 0 < size < least:
                yield Problem((key,), f"{format_size(size)} is less than one page of {self.page}")
