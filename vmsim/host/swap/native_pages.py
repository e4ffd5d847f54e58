"""The pages of a program on the host itself that are swapped out, and those that came back and have a slot still.

Linux keeps the slot in the entry of the page (include/linux/swapops.h). Here the entry is absent, and the address space
has the slot by the page's number: whoever unmaps, moves or copies a range of it does so to the slots too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Vcpu
from vmsim.frames.records import NO_FRAME
from vmsim.host.identity import ZERO
from vmsim.host.swap.area import NO_SLOT
from vmsim.host.swap.cache import Around
from vmsim.host.swap.swap import Swap
from vmsim.machine.formats import DIRTY, PAGE_SHIFT
from vmsim.machine.memory import read_entry

__all__ = ["SwappedSpaces"]

Words = NDArray[np.int64]


class _Space(Protocol):
    """An address space of the program."""

    root: int
    away: dict[int, int]


class Taken(NamedTuple):
    """Pages that have got slots: their frames, and the slots, int64[n] each; which need no write, bool[n]."""

    pages: Words
    slots: Words
    clean: NDArray[np.bool_]


class SwappedSpaces:
    """Which page of which address space is in which slot.

    Parameters
    ----------
    swap : Swap
        The host's.
    memory : NativeMemory
        The program's.
    spaces : callable
        Returns its address spaces.
    hold_back : callable
        Has compiled code map nothing until it has been found out what is away.

    Attributes
    ----------
    copies : dict
        By frame, the slots that hold what pages do that came back, unless they have been written to since.
    """

    def __init__(
        self,
        swap: Swap,
        memory: Any,
        spaces: Callable[[], Iterable[_Space]],
        hold_back: Callable[[], None],
    ) -> None:
        self.swap = swap
        self.memory = memory
        self.spaces = spaces
        self.hold_back = hold_back
        self.copies: dict[int, int] = {}
        swap.register(memory.owner)

    @property
    def count(self) -> int:
        """Pages that are away, in all address spaces."""
        return sum(len(space.away) for space in self.spaces())

    def take(self, pfns: Words) -> Taken:
        """Find a slot for the page in each of some frames, and say where it is; return those that have one."""
        by_root = {space.root: space for space in self.spaces()}
        roots, numbers = self.memory.places_of(pfns)
        known = np.array([root in by_root for root in roots.tolist()], np.bool_)
        pfns, roots, numbers = pfns[known], roots[known], numbers[known]
        identities = self.memory.identity.of_each(pfns)
        slots, clean = self._give_up_copies(pfns)
        new = np.flatnonzero(~clean)
        slots[new] = self.swap.admit_each(self.memory, pfns[new], identities[new], None, slots[new])
        there = slots != NO_SLOT
        for root, number, slot in zip(
            roots[there].tolist(), numbers[there].tolist(), slots[there].tolist(), strict=True
        ):
            by_root[root].away[number] = slot
        self.hold_back()
        return Taken(pfns[there], slots[there], clean[there])

    def _give_up_copies(self, pfns: Words) -> tuple[Words, NDArray[np.bool_]]:
        """Forget the slots of pages that are about to be taken; return those, and which need no write."""
        slots, clean = np.full(len(pfns), NO_SLOT), np.zeros(len(pfns), np.bool_)
        for at, pfn in enumerate(pfns.tolist()) if self.copies else ():
            slot = self.copies.pop(pfn, NO_SLOT)
            if slot != NO_SLOT:
                entry = read_entry(self.memory.words, int(self.memory.records["rmap"][pfn]), self.memory.width)
                slots[at], clean[at] = slot, not entry & DIRTY and slot not in self.swap.unwritten
        return slots, clean

    def write(self, taken: Taken) -> None:
        """Write pages for which `take` has found a slot, and whose entries have been cleared."""
        self.swap.write(self.memory, taken.pages, taken.slots, taken.pages, clean=taken.clean)

    def bring(self, vcpu: Vcpu, space: _Space, number: int, *, write: bool) -> Steps[tuple[int, bool]]:
        """Bring a page of a space back, for a vCPU that is about to write to it or not.

        Returns
        -------
        (frame, dirty) : tuple
            Where it is; NO_FRAME: it came back while this vCPU waited. And whether it was written to once, and no slot
            has that any more.
        """
        away = space.away
        around = Around(space, number, partial(_slots_of, away))
        back = yield from self.swap.bring(vcpu, self.memory, lambda: away.get(number), around, write=write)
        if back is None:
            return NO_FRAME, False
        vcpu.owe("guest_fault", back.cycles)
        slot = away.pop(number)
        written = self.swap.area.holding(slot).identity < ZERO
        self.memory.frames.charge(1)
        self.memory.returned += 1
        self.swap.lists.returned(self.memory, np.array([back.pfn]), np.array([slot]))
        if back.slot == NO_SLOT:
            self.swap.release(np.array([slot]))
        else:
            self.copies[back.pfn] = slot
        return back.pfn, written and back.slot == NO_SLOT

    def holds_other(self, pfn: int) -> bool:
        """Whether a frame's page holds something else than its entry says, which has lost its dirty flag on the way."""
        slot = self.copies.get(pfn)
        return slot is not None and self.swap.area.holding(slot).identity != self.memory.identity.of(pfn)

    def moved(self, old: int, new: int) -> None:
        """Note that a page lies in another frame."""
        if old in self.copies:
            self.copies[new] = self.copies.pop(old)

    def drop(self, space: _Space, first: int, limit: int) -> None:
        """Forget the pages of [first, limit), gvas, that are away: they are unmapped."""
        self._release([space.away.pop(number) for number in _within(space, first, limit)])

    def move(self, space: _Space, first: int, limit: int, to: int) -> None:
        """Move the pages of [first, limit), gvas, that are away to `to`."""
        moved = {number: space.away.pop(number) for number in _within(space, first, limit)}
        for number, slot in moved.items():
            space.away[number + (to - first >> PAGE_SHIFT)] = slot

    def copy(self, space: _Space, child: _Space, left_out: Iterable[tuple[int, int]]) -> None:
        """Have a child's space have the pages that are away too, but for some ranges of gvas (swap_duplicate)."""
        skipped = {number for first, limit in left_out for number in _within(space, first, limit)}
        for number, slot in space.away.items():
            if number not in skipped:
                self.swap.area.share(slot)
                child.away[number] = slot

    def freed(self, pfns: Words) -> None:
        """Forget the copies of pages whose frames are free."""
        self._release([self.copies.pop(pfn) for pfn in (pfns.tolist() if self.copies else ()) if pfn in self.copies])

    def close(self) -> None:
        """Forget everything: the program is no more."""
        for space in self.spaces():
            self._release([*space.away.values()])
            space.away.clear()
        self._release([*self.copies.values()])
        self.copies.clear()

    def _release(self, slots: list[int]) -> None:
        """Give slots up."""
        if slots:
            self.swap.release(np.array(slots))


def _slots_of(away: dict[int, int], window: range) -> Words:
    """Return the slots of those of a range of pages that are away, int64[n]."""
    return np.array([away[number] for number in window if number in away], np.int64)


def _within(space: _Space, first: int, limit: int) -> list[int]:
    """Return the pages of [first, limit), gvas, that are away."""
    if not space.away:
        return []
    low, high = first >> PAGE_SHIFT, limit - 1 >> PAGE_SHIFT
    return [number for number in space.away if low <= number <= high]
