"""The table ``[vm.reclaim]``: what the kernel of a guest does when it is short of memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer, Strict, WithJsonSchema

from vmsim import plugins
from vmsim.base.units import PAGE, format_size, parse_size
from vmsim.scenario.files import device_problems
from vmsim.scenario.problems import Problem
from vmsim.scenario.types import Model

__all__ = ["GuestReclaim", "GuestReclaimSpec"]

_NONE: Final = "none"
_Size = Annotated[
    int,
    BeforeValidator(lambda value: 0 if value == 0 else parse_size(value)),
    PlainSerializer(lambda size: format_size(size) if size else 0, return_type=str | int),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}], "examples": ["1GiB"]}),
]


class GuestReclaimSpec(NamedTuple):
    """What a kernel is told of reclaim.

    Attributes
    ----------
    swappiness : int
        As of vm.swappiness.
    swap : str
        Name of the swap device; empty: none.
    package : str
        The package that it comes from, and its version; empty: vmsim's own.
    slots : int
        Pages of 4 KiB of it.
    page_cluster : int
        2**page_cluster pages are read at a time at most.
    """

    swappiness: int
    swap: str
    package: str
    slots: int
    page_cluster: int


class GuestReclaim(Model):
    """``[vm.reclaim]``."""

    about: ClassVar[str] = "What the guest's kernel does when it is short of memory."

    policy: Literal["none", "two-list"] = Field(
        default="none",
        description="none: a guest that has no page left ends. two-list: its kernel takes pages of the page cache and "
        "of programs by Linux's active and inactive lists.",
    )
    swappiness: Annotated[int, Strict(), Field(ge=0, le=200)] = Field(
        default=60, description="Pages of programs beside those of files, 100: alike (vm.swappiness)."
    )
    swap: str = Field(
        default=_NONE,
        min_length=1,
        description="The guest's swap device: hdd, sata, nvme, or one of another package; none: programs' pages stay.",
    )
    swap_size: _Size = Field(default=0, description="Of that device; 0: as much as the VM has memory.")
    page_cluster: Annotated[int, Strict(), Field(ge=0, le=10)] = Field(
        default=3, description="2**page_cluster pages are read from it at a time at most (vm.page-cluster)."
    )

    @property
    def given(self) -> bool:
        """Whether the kernel reclaims."""
        return self.policy != _NONE

    def spec(self, memory: int) -> GuestReclaimSpec | None:
        """Return what it says for a VM of so many bytes; None: its kernel does not reclaim."""
        if not self.given:
            return None
        package = plugins.origin("swap_devices", self.swap) if self.swap != _NONE else None
        return GuestReclaimSpec(
            swappiness=self.swappiness,
            swap="" if self.swap == _NONE else self.swap,
            package=f"{package.package} {package.version}" if package else "",
            slots=(self.swap_size or memory) // PAGE,
            page_cluster=self.page_cluster,
        )

    def problems(self, *, bare: bool) -> Iterator[Problem]:
        """Yield what cannot be, and keys that would do nothing; `bare`: it is a program on the host itself."""
        fields: dict[str, Any] = {**type(self).model_fields}
        given = [key for key, field in fields.items() if getattr(self, key) != field.default]
        if bare and given:
            text = "the kernel is the host's, which takes pages by host.swap and vm.memory_max; leave it out"
            yield Problem((given[0],), text)
            return
        if not self.given:
            for key in given:
                yield Problem((key,), "it has no effect without reclaim.policy; leave it out")
            return
        if self.swap == _NONE:
            for key in ("swappiness", "swap_size", "page_cluster"):
                if key in given:
                    yield Problem((key,), "it has no effect without reclaim.swap; leave it out")
            return
        yield from device_problems("swap", self.swap)
        if self.swap_size and (self.swap_size < PAGE or self.swap_size % PAGE):
            yield Problem(("swap_size",), f"{format_size(self.swap_size)} is not a whole number of 4KiB pages")
