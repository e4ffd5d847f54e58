"""The table ``[vm.files]``: the disk that a VM's files are on, and its kernel's page cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, NamedTuple

from pydantic import Field, Strict

from vmsim import plugins
from vmsim.base.errors import InputError
from vmsim.base.units import parse_duration
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import DurationField, Model

__all__ = ["Files", "FilesSpec"]

_NONE: Final = "none"
_Percent = Annotated[int, Strict(), Field(ge=0, le=100)]


class FilesSpec(NamedTuple):
    """What a kernel is told of its page cache, with nothing left to look up: times in cycles.

    Attributes
    ----------
    disk : str
        Name of the device.
    package : str
        The package that it comes from, and its version; empty: vmsim's own.
    read_ahead : int
        Pages of 4 KiB at most.
    background, ratio : int
        Percent of the memory that may be dirty.
    expire, every : int
        How old dirty pages may become, and how often it is looked for them; 0: never.
    """

    disk: str
    package: str
    read_ahead: int
    background: int
    ratio: int
    expire: int
    every: int


class Files(Model):
    """``[vm.files]``."""

    about: ClassVar[str] = "The disk that the VM's files are on, and its kernel's page cache."

    disk: str = Field(
        default=_NONE,
        min_length=1,
        description="hdd, sata or nvme, or one of another package; none: programs read and write no files.",
    )
    read_ahead: Annotated[int, Strict(), Field(ge=0, le=1 << 16)] = Field(
        default=32, description="Pages of 4 KiB read at a time at most (read_ahead_kb / 4)."
    )
    dirty_background: _Percent = Field(
        default=10,
        description="Percent of the free memory and of the page cache that may be dirty before the kernel begins to "
        "write (vm.dirty_background_ratio).",
    )
    dirty: _Percent = Field(
        default=20, description="Percent at which programs that write wait for the disk (vm.dirty_ratio)."
    )
    dirty_expire: DurationField = Field(
        default=parse_duration("30s"),
        description="How old a dirty page becomes before it is written (vm.dirty_expire_centisecs).",
        json_schema_extra={"default": "30s"},
    )
    writeback_every: DurationField = Field(
        default=parse_duration("5s"),
        description="How often the kernel looks for such pages (vm.dirty_writeback_centisecs); 0s: never.",
        json_schema_extra={"default": "5s"},
    )

    @property
    def given(self) -> bool:
        """Whether there is a disk."""
        return self.disk != _NONE

    def spec(self, frequency: int) -> FilesSpec | None:
        """Return what it says for a CPU of `frequency` hertz; None: there is no disk."""
        if not self.given:
            return None
        package = plugins.origin("swap_devices", self.disk)
        every = self.writeback_every
        return FilesSpec(
            disk=self.disk,
            package=f"{package.package} {package.version}" if package else "",
            read_ahead=self.read_ahead,
            background=self.dirty_background,
            ratio=self.dirty,
            expire=self.dirty_expire.cycles(frequency),
            every=max(1, every.cycles(frequency)) if every.amount else 0,
        )

    def problems(self, workload: str) -> Iterator[Problem]:
        """Yield what cannot be, and keys that would do nothing, for a VM that runs a kind of workload."""
        if not self.given:
            if workload == "files":
                yield Problem(("disk",), 'workload.kind = "files" needs a disk: expected "hdd", "sata" or "nvme"')
            for key, field in type(self).model_fields.items():
                if getattr(self, key) != field.default:
                    yield Problem((key,), "it has no effect without files.disk; leave it out")
            return
        yield from device_problems("disk", self.disk)
        if self.dirty < self.dirty_background:
            text = f"files.dirty < files.dirty_background ({self.dirty} < {self.dirty_background})"
            yield Problem(("dirty",), text)
        if not self.writeback_every.amount and self.dirty_expire != type(self).model_fields["dirty_expire"].default:
            yield Problem(("dirty_expire",), "it has no effect with files.writeback_every = 0s; leave it out")


def device_problems(key: str, name: str) -> Iterator[Problem]:
    """Yield why a device is none that a VM's disk can be."""
    try:
        device: Any = plugins.load("swap_devices", name)
    except InputError as error:
        yield Problem((key,), str(error))
        return
    if device.compresses:
        yield Problem((key,), f"{name!r} is compressed memory; expected a device such as nvme")
