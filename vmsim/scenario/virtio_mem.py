"""The table ``[vm.virtio_mem]``: memory of a VM that its kernel plugs and unplugs in blocks, as its host asks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final, Literal, NamedTuple

from pydantic import Field

from vmsim.base.units import PAGE, format_size, parse_duration
from vmsim.scenario.problems import Problem
from vmsim.scenario.schedule import Schedule, SizeOrNone, ascending
from vmsim.scenario.types import DurationField, Flag, Model

__all__ = ["MEMORY_BLOCK", "VirtioMem", "VirtioMemSpec"]

MEMORY_BLOCK: Final = (128 << 20) // PAGE
"""Pages of what Linux hotplugs at once on x86 (arch/x86/mm/init_64.c, MIN_MEMORY_BLOCK_SIZE)."""

_BLOCKS: Final = {"2MiB": 2 << 20, "4MiB": 4 << 20, "8MiB": 8 << 20, "32MiB": 32 << 20, "128MiB": 128 << 20}


class VirtioMemSpec(NamedTuple):
    """What a virtio-mem device is told, with nothing left to look up: times in cycles, sizes in pages of 4 KiB.

    Attributes
    ----------
    first, pages : int
        The first guest frame of its region, and how many there are: the last of the VM's memory.
    block : int
        What is plugged or unplugged at once.
    steps : tuple of (int, int)
        Times since the VM's start, ascending, and sizes requested then; the first is plugged before it starts.
    retry : int
        How long its driver waits first when it could not unplug all.
    driver : bool
        The guest has one.
    most : int
        The most that a policy of the host may take; 0: none does.
    """

    first: int
    pages: int
    block: int
    steps: tuple[tuple[int, int], ...]
    retry: int
    driver: bool
    most: int


class VirtioMem(Model):
    """``[vm.virtio_mem]``."""

    about: ClassVar[str] = "Memory that the guest's kernel plugs and unplugs in blocks, as the host asks (virtio-mem)."

    region: SizeOrNone = Field(
        default=0, description="The device's memory: the upper part of vm.memory, below which the rest is always there."
    )
    size: SizeOrNone | None = Field(
        default=None, description="What of it is plugged when the VM starts. Default: all of it."
    )
    schedule: Schedule = ()
    max: SizeOrNone = Field(
        default=0, description="The most that the host's policy (host.overcommit.policy) may take; 0: nothing."
    )
    block: Literal["2MiB", "4MiB", "8MiB", "32MiB", "128MiB"] = Field(
        default="2MiB", description="What is plugged or unplugged at once."
    )
    retry: DurationField = Field(
        default=parse_duration("50s"),
        description="How long the driver waits before it tries again to unplug what it could not empty; each time in a "
        "row twice as long, up to six times this.",
        json_schema_extra={"default": "50s"},
    )
    driver: Flag = Field(
        default=True, description="The guest has a driver; without one nothing is plugged or unplugged."
    )

    @property
    def given(self) -> bool:
        """Whether there is a device."""
        return self.region > 0

    @property
    def _block(self) -> int:
        return _BLOCKS[self.block]

    def spec(self, memory: int, frequency: int) -> VirtioMemSpec | None:
        """Return what it says for a VM of so many bytes and a CPU of `frequency` hertz; None: there is no device."""
        if not self.given:
            return None
        size = self.region if self.size is None else self.size
        steps = [(0, size), *((time.cycles(frequency), size) for time, size in self.schedule)]
        return VirtioMemSpec(
            first=(memory - self.region) // PAGE,
            pages=self.region // PAGE,
            block=self._block // PAGE,
            steps=tuple((time, size // self._block * self._block // PAGE) for time, size in steps),
            retry=max(1, self.retry.cycles(frequency)),
            driver=self.driver,
            most=self.max // self._block * self._block // PAGE,
        )

    def problems(self, memory: int, *, bare: bool) -> Iterator[Problem]:
        """Yield what cannot be of a VM of so many bytes, and keys that would do nothing."""
        fields = type(self).model_fields
        given = [key for key, field in fields.items() if getattr(self, key) != field.default]
        if bare and given:
            text = "no kernel of a guest is there to plug memory: the program runs on the host itself; leave it out"
            yield Problem((given[0],), text)
            return
        if not self.given:
            for key in given:
                yield Problem((key,), "it has no effect without virtio_mem.region; leave it out")
            return
        if self.region >= memory:
            text = f"{format_size(self.region)} of a VM of {format_size(memory)}: it needs memory to boot in besides"
            yield Problem(("region",), text)
        for key, size in (("region", self.region), ("memory", memory)):
            if size % self._block:
                path = ("region",) if key == "region" else ("block",)
                yield Problem(path, f"{format_size(size)} of {key} is not a whole number of blocks of {self.block}")
        if not ascending(self.schedule):
            yield Problem(("schedule",), "its times are not in ascending order")
        for key, size in (
            ("size", self.size or 0),
            ("max", self.max),
            *(("schedule", size) for _, size in self.schedule),
        ):
            if size > self.region:
                yield Problem((key,), f"{format_size(size)} is more than the region ({format_size(self.region)})")
            elif 0 < size < self._block:
                yield Problem((key,), f"{format_size(size)} is less than one block of {self.block}")
        if self.schedule and self.max:
            yield Problem(("schedule",), "the host's policy sets the size (virtio_mem.max); leave one of the two out")
        if "retry" in given and not self.driver:
            yield Problem(("retry",), "it has no effect with virtio_mem.driver = false; leave it out")
