"""A balloon's device, as the driver in a guest's kernel knows it (virtio 1.3 §5.5)."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.contracts.steps import Words

__all__ = ["BalloonDevice", "PageHints", "Statistics"]


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


class PageHints(Protocol):
    """Free-page hints, as whoever reads a dirty log knows them, and the driver in the guest's kernel.

    Attributes
    ----------
    command : int
        By which the driver is asked for hints: another each time; 0: it is not, and holds nothing.
    changed : Event
        Triggered when that changes next.
    """

    command: int
    changed: simpy.Event

    def restart(self) -> NDArray[np.bool_]:
        """Ask for hints anew; return the guest frames that the guest has said are free since last, bool[frames]."""
        ...

    def done(self) -> None:
        """Ask for none any more, and let the guest use what it holds."""


class BalloonDevice(Protocol):
    """The host's side.

    Attributes
    ----------
    hints : PageHints or None
        What it does with hints of free pages; None: it takes none.
    target : int
        Pages of 4 KiB that are to be in the balloon.
    changed : Event
        Triggered when the target changes next: the interrupt for it.
    """

    target: int
    changed: simpy.Event
    hints: PageHints | None

    def inflate(self, firsts: Words, order: int) -> simpy.Event:
        """Take the memory of blocks of 2**order guest frames; return the event that the host has acknowledged it."""
        ...

    def deflate(self, firsts: Words, order: int) -> simpy.Event:
        """Let the guest have blocks again."""
        ...

    def report(self, firsts: Words, orders: Words) -> simpy.Event:
        """Take the memory of free blocks, of 2**orders frames each, which the guest may use again afterwards."""
        ...

    def hint(self, firsts: Words, order: int, command: int) -> simpy.Event:
        """Note that blocks of 2**order guest frames are free, which a `command` has asked for."""
        ...

    def now_has(self, pages: int) -> None:
        """Note how many pages are in the balloon (the device's configuration field `actual`)."""

    def tell(self, statistics: Statistics) -> None:
        """Note what the guest says of its memory."""
