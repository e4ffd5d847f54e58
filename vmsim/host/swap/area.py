"""The slots of a swap device, a page each, and what each holds (Linux mm/swapfile.c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import SwapPlace
from vmsim.jit import kernel
from vmsim.machine.memory import zeroed

__all__ = ["NO_SLOT", "Holding", "SwapArea"]

NO_SLOT = -1
ROOM = 1024  # pages that compiled code can bring back before that is noted
_USED = int(SwapPlace.USED)

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


@kernel
def _release_slots(users, slots):  # type: ignore[no-untyped-def]
    """Note one user fewer of some slots, int64[n]; move those that are free to the front, and return how many."""
    count = 0
    for at in range(len(slots)):
        users[slots[at]] -= 1
        if users[slots[at]] == 0:
            slots[count] = slots[at]
            count += 1
    return count


@kernel
def _whose_all(whose, slots):  # type: ignore[no-untyped-def]
    """Return whose pages all of some slots hold, int64[n]; -1: they are not one's."""
    for at in range(1, len(slots)):
        if whose[slots[at]] != whose[slots[0]]:
            return np.int64(-1)
    return np.int64(whose[slots[0]])


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
    cycles : int, optional
        Of the host's work for a page that comes back.

    Attributes
    ----------
    most : int
        The most that have been used at once.
    state : int64[SwapPlace.FIRST + ROOM]
        What compiled code knows of it, by `SwapPlace`.
    numbers, identities : int64[size]
        Of the page that each slot holds, as of `Holding`.
    users_of : int32[size]
        How many refer to each: pages that are away, and that came back.
    """

    def __init__(self, size: int, cycles: int = 0) -> None:
        self.size = size
        self.state = np.zeros(SwapPlace.FIRST + ROOM, np.int64)
        self.state[SwapPlace.SIZE], self.state[SwapPlace.CYCLES] = size, cycles
        self.numbers: Words = zeroed(8 * size).view(np.int64)
        self.identities: Words = zeroed(8 * size).view(np.int64)
        self.users_of = zeroed(4 * size).view(np.int32)
        self._whose = zeroed(4 * size).view(np.int32)
        self._memories: list[Any] = []
        self._indices: dict[Any, int] = {}  # of them
        self._words: dict[int, Words] = {}
        self._filled: NDArray[np.bool_] = zeroed(size).view(np.bool_)  # which slots are in it
        self._next = 0
        self.most = 0

    def __contains__(self, slot: int) -> bool:
        return 0 <= slot < self.size and bool(self.users_of[slot])

    @property
    def used(self) -> int:
        """Slots that hold something."""
        return int(self.state[_USED])

    @property
    def free(self) -> int:
        """Slots that hold nothing."""
        return self.size - self.used

    def allocate(self, memory: Any, numbers: Words, identities: Words, words: Sequence[Words | None] | None) -> Words:
        """Return slots for pages of a memory, int64[n], each with one user; fewer, the first, if there are not enough.

        Parameters are as of `refill`.
        """
        slots = np.empty(min(len(numbers), self.free), np.int64)
        self._next = int(allocate_slots(self.users_of, self._next, slots))
        self.refill(slots, memory, numbers[: len(slots)], identities[: len(slots)], words)
        self.state[_USED] += len(slots)
        self.most = max(self.most, self.used)
        return slots

    def refill(
        self, slots: Words, memory: Any, numbers: Words, identities: Words, words: Sequence[Words | None] | None
    ) -> None:
        """Note that slots, int64[n], hold something else, for the same users.

        Parameters
        ----------
        memory : GuestMemory or NativeMemory
            Whose pages.
        numbers, identities : int64[n]
            Which, and what they hold.
        words : sequence, optional
            The same of those that do not hold zeros.
        """
        if memory not in self._indices:
            self._indices[memory] = len(self._memories)
            self._memories.append(memory)
        self._whose[slots] = self._indices[memory]
        self.numbers[slots], self.identities[slots] = numbers, identities
        self._drop_words(slots)
        for slot, held in zip(slots.tolist(), words, strict=False) if words else ():
            if held is not None:
                self._words[slot], self._filled[slot] = held, True

    def holding(self, slot: int) -> Holding:
        """Return what a slot holds."""
        memory = self._memories[self._whose[slot]]
        return Holding(memory, int(self.numbers[slot]), self._words.get(slot), int(self.identities[slot]))

    def by_memory(self, slots: Words) -> list[tuple[Any, Words | slice]]:
        """Return whose pages some slots hold, int64[n]: each memory, and which of them, by their places, int64[m]."""
        if not len(slots):
            return []
        if (one := _whose_all(self._whose, slots)) >= 0:
            return [(self._memories[one], slice(None))]
        whose = self._whose[slots]
        return [(self._memories[each], np.flatnonzero(whose == each)) for each in dict.fromkeys(whose.tolist())]

    @property
    def all_zeros(self) -> bool:
        """Whether every slot that is used holds zeros."""
        return not self._words

    def holds_zeros(self, slots: Words) -> NDArray[np.bool_]:
        """Return which of some slots, int64[n], hold zeros, bool[n]."""
        return np.asarray(~self._filled[slots])

    def share(self, slot: int) -> None:
        """Note one more user."""
        self.users_of[slot] += 1

    def users(self, slot: int) -> int:
        """Return how many there are."""
        return int(self.users_of[slot])

    def free_each(self, slots: Words) -> Words:
        """Note one user fewer of some slots, int64[n]; return those whose last it was, and which are free."""
        slots = slots.copy()
        slots = slots[: _release_slots(self.users_of, slots)]
        self._drop_words(slots)
        self.state[_USED] -= len(slots)
        return slots

    def _drop_words(self, slots: Words) -> None:
        """Forget what some slots held."""
        if self._words:
            for slot in slots[self._filled[slots]].tolist():
                del self._words[slot]
                self._filled[slot] = False

    def used_among(self, slots: range) -> Words:
        """Return those of a range that hold something, int64[n]."""
        inside = np.arange(max(slots.start, 0), min(slots.stop, self.size))
        return np.asarray(inside[self.users_of[inside] > 0])

    def slots(self) -> list[int]:
        """Return those that hold something, ascending."""
        found: list[int] = np.flatnonzero(self.users_of).tolist()
        return found
