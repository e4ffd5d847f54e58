"""A balloon's device, as the driver in a guest's kernel knows it (virtio 1.3 §5.5)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import simpy

from vmsim.contracts.steps import Words

__all__ = ["BalloonDevice", "Statistics"]


class Statistics(NamedTuple):
    """What a guest's kernel tells its host of its memory, in pages of 4 KiB (virtio 1.3 §5.5.6.3).

    Attributes
    ----------
    free : int
        Pages that nobody uses.
    total : int
        All that its kernel has, without those in the balloon.
    faults : int
        Page faults that it has handled.
    """

    free: int
    total: int
    faults: int


class BalloonDevice(Protocol):
    """The host's side.

    Attributes
    ----------
    target : int
        Pages of 4 KiB that are to be in the balloon.
    changed : Event
        Triggered when the target changes next: the interrupt for it.
    """

    target: int
    changed: simpy.Event

    def inflate(self, firsts: Words, order: int) -> simpy.Event:
        """Take the memory of blocks of 2**order guest frames; return the event that the host has acknowledged it."""
        ...

    def deflate(self, firsts: Words, order: int) -> simpy.Event:
        """Let the guest have blocks again."""
        ...

    def report(self, firsts: Words, orders: Words) -> simpy.Event:
        """Take the memory of free blocks, of 2**orders frames each, which the guest may use again afterwards."""
        ...

    def now_has(self, pages: int) -> None:
        """Note how many pages are in the balloon (the device's configuration field `actual`)."""

    def tell(self, statistics: Statistics) -> None:
        """Note what the guest says of its memory."""
