"""What a guest's kernel that is short of memory goes by, and who asks it for some."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.contracts.host import Found
from vmsim.contracts.processor import Vcpu
from vmsim.contracts.steps import Steps, Words

__all__ = ["Compacts", "MakesRoom", "ScannedLists", "SwappedOut"]


class ScannedLists(Protocol):
    """An active and an inactive list of pages, by frame; `vm` is whoever has the pages."""

    @property
    def counts(self) -> dict[str, int]:
        """What was done, and found."""
        ...

    @property
    def deactivates(self) -> bool:
        """Whether active pages may become inactive in this reclaim."""
        ...

    def size(self, which: int) -> int:
        """Return how long the inactive list is (0), or the active one (1)."""
        ...

    def begin(self) -> None:
        """Begin a reclaim."""

    def end(self) -> None:
        """End it."""

    def renew(self, vm: Any) -> None:
        """Find new pages, where it is time to."""

    def ask(self, vm: Any, inactive: int, active: int) -> tuple[int, Words]:
        """Return pages of which it is to be found out whether they were accessed, int64[n], before `shrink`.

        And before them how many inactive ones there are to be looked at.
        """
        ...

    def answer(self, vm: Any, numbers: Words, young: NDArray[np.bool_]) -> None:
        """Learn which of them were, bool[n]."""

    def shrink(self, vm: Any, inactive: int, active: int, goal: int) -> Found:
        """Look at so many pages of each list; return those to be taken, about `goal` at most."""
        ...

    def rebalance(self, vm: Any) -> None:
        """Move some active pages to the inactive list where that is short."""

    def add(self, vm: Any, number: int) -> None:
        """Learn of a new page."""

    def use(self, vm: Any, number: int) -> None:
        """Learn that a page was used by a system call."""

    def drop(self, vm: Any, numbers: Words) -> None:
        """Learn that pages are no more, int64[n]."""

    def keep(self, vm: Any, number: int, *, active: bool) -> None:
        """Put a page that could not be taken on a list again."""

    def evicted(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Learn that pages of a memory have gone to slots."""

    def returned(self, memory: Any, numbers: Words, slots: Words) -> None:
        """Learn that they came back, as pages of these numbers, int64[n]."""


class SwappedOut(Protocol):
    """A guest's swap device, and which pages are on it."""

    @property
    def room(self) -> int:
        """Free slots."""
        ...

    @property
    def writing(self) -> int:
        """Frames that are free when the device has written them."""
        ...

    @property
    def progress(self) -> simpy.Event:
        """Triggered the next time that the device is done with a frame."""
        ...

    def admit(self, gfns: Words) -> tuple[Words, Any]:
        """Find slots for pages, and say where they are; return those that have one, and what `write` is to be given."""
        ...

    def write(self, vcpu: Vcpu, taken: Any) -> None:
        """Write pages that nothing maps any more."""

    def spaces(self) -> Iterable[Any]:
        """Return the address spaces."""
        ...


class Compacts(Protocol):
    """Who has free memory of a kernel come together."""

    def compact(self, vcpu: Vcpu, order: int) -> Steps[bool]:
        """Move pages until a block of 2**order frames is free; return whether one is."""
        ...

    def wake(self, order: int) -> None:
        """Have that done later."""


class MakesRoom(Protocol):
    """Who frees frames of a kernel before they are taken."""

    def make_room(self, vcpu: Vcpu, frames: int) -> Steps[None]:
        """Have so many frames be free above the min watermark, if that can be."""
        ...

    def try_once(self, vcpu: Vcpu, frames: int) -> Steps[None]:
        """Do the same for who can do without (__GFP_NORETRY)."""
        ...

    def last_resort(self, vcpu: Vcpu) -> Steps[bool]:
        """Take pages for who has found none; return whether there were any."""
        ...
