"""Swap in a scenario: the table ``[host.swap]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer, Strict, WithJsonSchema

from vmsim import plugins
from vmsim.base.errors import InputError
from vmsim.base.units import PAGE, format_size, parse_size
from vmsim.host.swap.spec import SwapDevice
from vmsim.scenario.daemons import HostDaemon, HostTable
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.problems import Problem
from vmsim.scenario.service import ServiceField, parse_service
from vmsim.scenario.types import Flag, Fraction01

__all__ = ["SWAP", "HostSwap"]

_NONE: Final = "none"
_TWO_LIST: Final = "two-list"
_COMPRESSED: Final = "zram"
_OF_ZSWAP: Final = ("zswap_max_pool_percent", "zswap_accept_threshold_percent")
_Channels = Annotated[int, Strict(), Field(ge=0, le=4096)]


def _size(value: object) -> int:
    return 0 if value == 0 else parse_size(value)


_Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(lambda size: format_size(size) if size else 0, return_type=str | int),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0}], "examples": ["8GiB"]}),
]


class HostSwap(HostTable):
    """Where pages go that the host takes when it is short of memory, and how it chooses them."""

    about = "A swap device, and how a host that is short of memory chooses the pages that go there."

    device: str = Field(
        default=_NONE,
        min_length=1,
        description="hdd, sata, nvme or zram (compressed memory), or one of another package; none: no swap.",
    )
    size: _Size = Field(default=0, description="Of the device; 0: as much as the host has memory.")
    policy: str = Field(
        default=_TWO_LIST,
        description="Which pages are taken. two-list: Linux's active and inactive lists. mglru: its generations. "
        "clock, random: as of reclaim.",
    )
    page_cluster: Annotated[int, Strict(), Field(ge=0, le=10)] = Field(
        default=3, description="2**page_cluster pages are read at a time at most (vm.page-cluster)."
    )
    read: ServiceField = Field(
        default="", description='How long reading a page takes, such as "lognormal 90us 0.4"; the device\'s own.'
    )
    write: ServiceField = Field(default="", description="How long writing a page takes.")
    channels: _Channels = Field(default=0, description="Pages that are read at the same time; 0: the device's own.")
    write_channels: _Channels = Field(default=0, description="Pages that are written; 0: the device's own.")
    ratio: Annotated[float, Field(ge=1, le=1000, strict=True)] = Field(
        default=1.0,
        description="zram and zswap: bytes by bytes compressed, of all pages but those of zeros; 1: the device's own.",
    )
    zswap: Flag = Field(
        default=False, description="Pages are compressed in memory first, and go to the device when that is full."
    )
    zswap_max_pool_percent: Annotated[int, Strict(), Field(ge=0, le=100)] = Field(
        default=20, description="zswap: how much of the host's memory compressed pages may take, in percent."
    )
    zswap_accept_threshold_percent: Annotated[int, Strict(), Field(ge=0, le=100)] = Field(
        default=90, description="zswap: below how much of that, in percent, more are taken again once it was full."
    )
    read_errors: Fraction01 = Field(default=0.0, description="How likely it is that a page cannot be read.")
    write_errors: Fraction01 = Field(default=0.0, description="How likely it is that a page cannot be written.")

    def zswap_spec(self) -> SwapDevice:
        """Return how zswap compresses: as zram does."""
        device: SwapDevice = plugins.load("swap_devices", _COMPRESSED)
        ratio = {"ratio_image": self.ratio, "ratio_unique": self.ratio} if self.ratio > 1 else {}
        return SwapDevice(**{**vars(device), **ratio})

    def spec(self) -> SwapDevice:
        """Return the device, with what the table says of it."""
        device: SwapDevice = plugins.load("swap_devices", self.device)
        changes: dict[str, Any] = {key: getattr(self, key) for key in ("read", "write") if getattr(self, key)}
        changes |= {key: getattr(self, key) for key in ("channels", "write_channels") if getattr(self, key)}
        if self.ratio > 1:
            changes |= {"ratio_image": self.ratio, "ratio_unique": self.ratio}
        return SwapDevice(**{**vars(device), **changes})


class _Swap(HostDaemon):
    name = "swap"
    table = HostSwap
    build = "vmsim.host.daemons.swap.daemon:build"

    def runs(self, table: HostSwap) -> bool:
        return table.device != _NONE

    def policies(self, table: HostSwap) -> tuple[str, ...]:
        return (table.policy,)

    def files(self, table: HostSwap) -> dict[str, str]:
        services = {key: parse_service(text) for key in ("read", "write") if (text := getattr(table, key))}
        return {key: each.path for key, each in services.items() if each.path}

    def naming(self, key: str, path: str) -> str:
        return f"file {path}"

    def problems(self, table: HostSwap, vms: Sequence[VmKeys]) -> Iterator[Problem]:
        if table.device == _NONE:
            for key, field in HostSwap.model_fields.items():
                if getattr(table, key) != field.default:
                    yield Problem((key,), "it has no effect without swap.device")
            return
        try:
            device: SwapDevice = plugins.load("swap_devices", table.device)
        except InputError as error:
            yield Problem(("device",), str(error))
            return
        try:
            chooses = plugins.load("policies", table.policy).chooses
        except InputError as error:
            yield Problem(("policy",), str(error))
        else:
            if chooses not in ("lists", "victims"):
                yield Problem(("policy",), f"{table.policy!r} chooses {chooses}; expected one that chooses lists")
        if table.size and (table.size < PAGE or table.size % PAGE):
            yield Problem(("size",), f"{format_size(table.size)} is not a whole number of 4KiB pages")
        blocks = ("page_cluster", "channels", "write_channels", "read_errors", "write_errors", "zswap")
        for key in () if table.zswap else _OF_ZSWAP:
            if getattr(table, key) != HostSwap.model_fields[key].default:
                yield Problem((key,), "it has no effect with swap.zswap = false; leave it out")
        for key in blocks if device.compresses else () if table.zswap else ("ratio",):
            if getattr(table, key) != HostSwap.model_fields[key].default:
                what = "compressed memory" if device.compresses else f"a device ({table.device})"
                yield Problem((key,), f"it has no effect on {what}")

    def canonical(self, table: HostSwap) -> dict[str, Any]:
        package = plugins.origin("swap_devices", table.device)
        said = table.model_dump(exclude=None if table.zswap else {"zswap", *_OF_ZSWAP})
        return said | ({"package": f"{package.package} {package.version}"} if package else {})


SWAP: Final = _Swap()
