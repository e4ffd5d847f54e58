"""What a swap device is: how long a page takes it, and how many at once."""

from __future__ import annotations

from dataclasses import dataclass

from vmsim import plugins

__all__ = ["SwapDevice"]


@dataclass(frozen=True)
class SwapDevice:
    """A kind of swap device.

    Attributes
    ----------
    name : str
        Of its entry point.
    read, write : str
        How long a page takes (`scenario.service`).
    channels, write_channels : int
        Pages that are read, and written, at the same time; no write channels of its own (0): they are the same.
    rotation : int
        Nanoseconds of a turn, half of which a page waits for on average; 0: nothing turns.
    following : int
        Nanoseconds of a page that lies behind the one before it, where something turns.
    compresses : bool
        There is no device: pages are compressed in the host's memory, by whoever swaps them out or in.
    ratio_image, ratio_unique : float
        Of pages of an image and of others, bytes by bytes compressed; pages of zeros take none.
    source, confidence : str
        Of the figures.
    """

    name: str
    read: str
    write: str
    channels: int = 1
    write_channels: int = 0
    rotation: int = 0
    following: int = 0
    compresses: bool = False
    ratio_image: float = 0.0
    ratio_unique: float = 0.0
    source: str = ""
    confidence: str = "guess"


def _wrong(plugin: plugins.Plugin, part: object) -> str | None:
    """Return what is wrong with a registered device."""
    if not isinstance(part, SwapDevice):
        return f"it is {type(part).__name__}, expected a vmsim.host.swap.spec.SwapDevice"
    return None if part.name == plugin.name else f"it calls itself {part.name!r}"


plugins.add_check("swap_devices", _wrong)
