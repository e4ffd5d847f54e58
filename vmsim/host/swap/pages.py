"""The pages of one VM that are swapped out, and those that came back and have a slot still."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Steps, Vcpu
from vmsim.host.swap.area import NO_SLOT, Holding
from vmsim.host.swap.cache import Around
from vmsim.host.swap.swap import Swap
from vmsim.tables.backing import set_backing

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
        By gfn, the slots that hold what pages do that came back, unless they have been written to since.
    """

    def __init__(self, swap: Swap, memory: Any) -> None:
        self.swap = swap
        self.memory = memory
        self.away: dict[int, int] = {}
        self.copies: dict[int, int] = {}
        self._clean: set[int] = set()  # of those that are being taken
        swap.register(memory.owner)

    def admit(self, gfns: Words) -> Words:
        """Find a slot for each of some pages that are about to be taken; return those that have one."""
        found, self._clean = [], set()
        for gfn in gfns.tolist():
            words = self.memory.page(gfn)
            copy = self.copies.get(gfn, NO_SLOT)
            clean = copy != NO_SLOT and not self.written(gfn)
            self.copies.pop(gfn, None)
            if clean:
                self._clean.add(gfn)
                self.away[gfn] = copy
                found.append(gfn)
                continue
            held = words.copy() if words.any() else None
            holding = Holding(self.memory, gfn, held, self.memory.identity.of(gfn))
            slot = self.swap.admit(holding, slot=copy)
            if slot == NO_SLOT:
                continue
            self.away[gfn] = slot
            found.append(gfn)
        return np.array(found, np.int64)

    def written(self, gfn: int) -> bool:
        """Whether a page may have been written to since it came back.

        Where nothing maps it nobody knows, nor where its dirty flag is a log's to clear. A guest's kernel that uses a
        frame for something else writes to it too.
        """
        memory = self.memory
        if memory.logged or memory.holds_table(gfn) or not memory.second.mapped(gfn, 1)[0]:
            return True
        held = self.swap.area.holding(self.copies[gfn])
        return bool(memory.second.dirty(gfn, 1, clear=False)[0]) or memory.identity.of(gfn) != held.identity

    def write(self, gfns: Words, pfns: Words) -> None:
        """Write pages that were admitted, and have been taken from their frames."""
        for gfn, pfn in zip(gfns.tolist(), pfns.tolist(), strict=True):
            self.swap.write(self.away[gfn], pfn, clean=gfn in self._clean)

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
        return back.cycles

    def words(self, gfn: int) -> Words | None:
        """Return what a page that is away holds; None: zeros, or it is not away."""
        slot = self.away.get(gfn)
        return None if slot is None else self.swap.area.holding(slot).words

    def forget(self, gfn: int) -> None:
        """Forget what a slot holds of a page, whether that is away or came back."""
        for slots in (self.away, self.copies):
            if (slot := slots.pop(gfn, None)) is not None:
                self.swap.release(slot)

    def changes(self, gfn: int) -> None:
        """Forget the copy of a page whose entries are about to go, if it was written to."""
        if gfn in self.copies and self.written(gfn):
            self.swap.release(self.copies.pop(gfn))

    def wrote(self, gfns: Words) -> None:
        """Forget the copies of pages that a device is about to write to."""
        for gfn in gfns.tolist():
            if gfn in self.copies:
                self.swap.release(self.copies.pop(gfn))

    def close(self) -> None:
        """Forget everything: the VM is no more."""
        for gfn in [*self.away, *self.copies]:
            self.forget(gfn)
