"""The slots of a swap device, a page each, and what each holds (Linux mm/swapfile.c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.jit import kernel

__all__ = ["NO_SLOT", "Holding", "SwapArea"]

NO_SLOT = -1

Words = NDArray[np.int64]


@kernel
def allocate_slots(users, slot, found):  # type: ignore[no-untyped-def]
    """Fill `found`, int64[n], with the next free slots from `slot` on, each with one user; return the one after."""
    for at in range(len(found)):
        while slot == len(users) or users[slot]:
            slot = 0 if slot >= len(users) else slot + 1
        users[slot] = 1
        found[at] = slot
        slot += 1
    return slot


class Holding(NamedTuple):
    """What a slot holds.

    Attributes
    ----------
    memory : GuestMemory or NativeMemory
        Whose page it is, or was first: after a fork several address spaces may have it.
    number : int
        The page's number there when it was taken.
    words : int64[512] or None
        What it held; None: zeros, as far as is simulated.
    identity : int
        The same, as far as pages of data are told apart (`identity.PageIdentity`).
    """

    memory: Any
    number: int
    words: Words | None
    identity: int


class SwapArea:
    """Slots, handed out one after the other, the next free one first.

    Pages that are taken together lie side by side so (scan_swap_map_slots goes on from `cluster_next`).

    Parameters
    ----------
    size : int
        Slots.

    Attributes
    ----------
    used : int
        Slots that hold something.
    most : int
        The most that have.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._users = np.zeros(size, np.int32)  # who refers to each: pages that are away, and pages that came back
        self._held: dict[int, Holding] = {}
        self._next = 0
        self.used = self.most = 0

    def __contains__(self, slot: int) -> bool:
        return slot in self._held

    @property
    def free(self) -> int:
        """Slots that hold nothing."""
        return self.size - self.used

    def allocate(self, holdings: Sequence[Holding]) -> Words:
        """Return slots for pages, with one user each, int64[n]; fewer, those of the first, if there are not enough."""
        slots = np.empty(min(len(holdings), self.size - self.used), np.int64)
        self._next = int(allocate_slots(self._users, self._next, slots))
        self._held.update(zip(slots.tolist(), holdings, strict=False))
        self.used += len(slots)
        self.most = max(self.most, self.used)
        return slots

    def refill(self, slot: int, holding: Holding) -> None:
        """Note that a slot holds something else, for the same users."""
        self._held[slot] = holding

    def holding(self, slot: int) -> Holding:
        """Return what a slot holds."""
        return self._held[slot]

    def share(self, slot: int) -> None:
        """Note one more user."""
        self._users[slot] += 1

    def users(self, slot: int) -> int:
        """Return how many there are."""
        return int(self._users[slot])

    def free_one(self, slot: int) -> bool:
        """Note one user fewer; return whether it was the last, and the slot is free."""
        self._users[slot] -= 1
        if self._users[slot]:
            return False
        del self._held[slot]
        self.used -= 1
        return True

    def slots(self) -> list[int]:
        """Return those that hold something, ascending."""
        return sorted(self._held)
