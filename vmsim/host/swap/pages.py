"""The pages of one VM that are swapped out, and those that came back and have a slot still."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Vcpu
from vmsim.host.swap.area import NO_SLOT
from vmsim.host.swap.cache import Around
from vmsim.host.swap.swap import Swap
from vmsim.machine.formats import FRAME, PAGE_SHIFT
from vmsim.tables.backing import CLEAN, clean_backing, set_backing
from vmsim.tables.pages import clear_pages, find_words

__all__ = ["SwappedPages"]

Words = NDArray[np.int64]


class SwappedPages:
    """Which page of a VM is in which slot.

    Parameters
    ----------
    swap : Swap
        The host's.
    memory : GuestMemory
        The VM's.

    Attributes
    ----------
    away : dict
        By gfn, the slots of pages that are swapped out.
    copies : dict
        By gfn, the slots that hold what clean pages do: those that came back to be read, until they are written to.
    """

    def __init__(self, swap: Swap, memory: Any) -> None:
        self.swap = swap
        self.memory = memory
        self.away: dict[int, int] = {}
        self.copies: dict[int, int] = {}
        self._clean = np.zeros(0, np.bool_)  # which of those that are being taken need no write
        swap.register(memory.owner)

    @property
    def count(self) -> int:
        """Pages that are away."""
        return len(self.away)

    def admit(self, gfns: Words) -> Words:
        """Find a slot for each of some pages that are about to be taken; return those that have one.

        What they hold is on its way there, and zeros are in their frames.
        """
        memory = self.memory
        pfns = (memory.backing[gfns] & FRAME) >> PAGE_SHIFT
        clean, old = self._give_up_copies(gfns)
        held = np.empty(len(gfns), np.bool_)
        find_words(memory.words, pfns, held)
        words = {at: memory.words[pfns[at] << 9 : (pfns[at] + 1) << 9].copy() for at in np.flatnonzero(held).tolist()}
        wanted = np.flatnonzero(~clean)
        slots = old.copy()
        slots[wanted] = self.swap.admit_each(
            memory,
            gfns[wanted],
            memory.identity.of_each(gfns[wanted]),
            [words.get(at) for at in wanted.tolist()] if words else None,
            old[wanted],
        )
        there = slots != NO_SLOT
        clear_pages(memory.words, pfns[there & held])
        gfns = gfns[there]
        self.away.update(zip(gfns.tolist(), slots[there].tolist(), strict=True))
        self._clean = clean[there]
        return gfns

    def _give_up_copies(self, gfns: Words) -> tuple[NDArray[np.bool_], Words]:
        """Forget the slots of pages that are about to be taken; return which need no write, and their slots."""
        clean, slots = np.zeros(len(gfns), np.bool_), np.full(len(gfns), NO_SLOT)
        backing, copies = self.memory.backing, self.copies
        for at in np.flatnonzero(backing[gfns] & CLEAN).tolist():
            gfn = int(gfns[at])
            slots[at] = copies.pop(gfn)
            clean_backing(backing, gfn, clean=False)
            clean[at] = slots[at] not in self.swap.unwritten
        return clean, slots

    def write(self, gfns: Words, pfns: Words) -> None:
        """Write pages that were admitted, and have been taken from their frames."""
        slots = np.array([self.away[gfn] for gfn in gfns.tolist()], np.int64)
        self.swap.write(self.memory, gfns, slots, pfns, clean=self._clean)

    def bring(self, vcpu: Vcpu, gfn: int, *, write: bool) -> Steps[int]:
        """Bring a page back, if it is away still; return the cycles of the host's work."""
        away = self.away
        around = Around(self.memory, gfn, away.get)
        back = yield from self.swap.bring(vcpu, self.memory, lambda: away.get(gfn), around, write=write)
        if back is None:
            return 0
        slot = away.pop(gfn)
        set_backing(self.memory.backing, self.memory.host.frames, gfn, back.pfn, 0)
        self.memory.returned += 1
        self.swap.lists.returned(self.memory, gfn, slot)
        if back.slot == NO_SLOT:
            self.swap.release(slot)
        else:
            self.copies[gfn] = slot
            clean_backing(self.memory.backing, gfn, clean=True)
        return back.cycles

    def words(self, gfn: int) -> Words | None:
        """Return what a page that is away holds; None: zeros, or it is not away."""
        slot = self.away.get(gfn)
        return None if slot is None else self.swap.area.holding(slot).words

    def forget(self, gfn: int) -> None:
        """Forget what a slot holds of a page, whether that is away or came back, and may be written to then."""
        if self.memory.backing[gfn] & CLEAN:
            clean_backing(self.memory.backing, gfn, clean=False)
        for slots in (self.away, self.copies):
            if (slot := slots.pop(gfn, None)) is not None:
                self.swap.release(slot)

    def close(self) -> None:
        """Forget everything: the VM is no more."""
        for gfn in [*self.away, *self.copies]:
            self.forget(gfn)
