"""A virtio-mem device, as the driver in a guest's kernel knows it (virtio 1.3 §5.15)."""

from __future__ import annotations

from typing import Protocol

import simpy

__all__ = ["MemoryDevice"]


class MemoryDevice(Protocol):
    """The host's side.

    Attributes
    ----------
    requested : int
        Pages of 4 KiB of its region that the guest is to have plugged.
    changed : Event
        Triggered when that changes next: the interrupt for it.
    """

    requested: int
    changed: simpy.Event

    def plug(self, first: int, count: int) -> simpy.Event:
        """Let the guest have `count` guest frames from `first` on; return the event that the host has acknowledged."""
        ...

    def unplug(self, first: int, count: int) -> simpy.Event:
        """Take the memory of `count` guest frames from `first` on."""
        ...
