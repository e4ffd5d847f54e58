"""The pages of one VM that are swapped out, and those that came back and have a slot still."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import MapsCached, Steps, SwapPlace, Vcpu
from vmsim.frames.buddy import hand_over
from vmsim.frames.records import State
from vmsim.host.swap.area import NO_SLOT
from vmsim.host.swap.cache import AHEAD, Around, Fetched, leave
from vmsim.host.swap.swap import Swap
from vmsim.jit import kernel
from vmsim.machine.formats import FRAME, PAGE_SHIFT
from vmsim.machine.memory import zeroed
from vmsim.tables.backing import CACHED, CLEAN, SWAPPED, clean_backing, set_backing
from vmsim.tables.pages import clear_pages, find_words

__all__ = ["SwappedPages"]

Words = NDArray[np.int64]

_USED, _BROUGHT, _FIRST = int(SwapPlace.USED), int(SwapPlace.BROUGHT), int(SwapPlace.FIRST)


@kernel
def find_slots(backing, slots, first, limit, found):  # type: ignore[no-untyped-def]
    """List the slots of those of the pages [first, limit) that are away; `slots` has 1 more. Return how many are."""
    count = 0
    for gfn in range(max(first, 0), min(limit, len(backing))):
        if backing[gfn] & SWAPPED:
            found[count] = slots[gfn] - 1
            count += 1
    return count


@kernel
def note_brought(backing, slots, cache, zones, frames, owner, gfns, found):  # type: ignore[no-untyped-def]
    """Note that pages of the swap cache, int64[n], are their VM's.

    Parameters
    ----------
    backing, slots : int64[:]
        Where the VM's pages lie, and as of `SwappedPages`.
    cache : int64[:, 5]
        The swap cache, which they leave.
    zones, frames, owner
        As of `hand_over`.
    gfns : int64[n]
        The pages.
    found : int64[3, n]
        Filled: their slots; the slots that they give up, as far as they do; scratch.

    Returns
    -------
    (ahead, gone) : tuple of int
        How many were read ahead, and how many give their slots up.
    """
    ahead, gone = 0, 0
    for at in range(len(gfns)):
        word = backing[gfns[at]]
        slot = slots[gfns[at]] - 1
        found[0, at] = slot
        found[2, at] = (word & FRAME) >> PAGE_SHIFT
        ahead += leave(cache, slot) & AHEAD != 0
        if word & CLEAN == 0:
            slots[gfns[at]] = 0
            found[1, gone] = slot
            gone += 1
    hand_over(zones, frames, found[2], owner, np.int64(State.GUEST))
    return ahead, gone


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
    slots : int64[frames]
        1 more than the slot of each page that is swapped out, or came back to be read and has not been written to
        since: the slot of such a clean page holds what it does. 0: it has none.
    count : int
        Pages that are away.
    """

    def __init__(self, swap: Swap, memory: Any) -> None:
        self.swap = swap
        self.memory = memory
        self.slots: Words = zeroed(8 * max(len(memory.backing), 1)).view(np.int64)
        self.count = 0
        self._clean = np.zeros(0, np.bool_)  # which of those that are being taken need no write
        swap.register(memory.owner)

    def slot_of(self, gfn: int) -> int | None:
        """Return the slot of a page that is away; None: it is not."""
        away = 0 <= gfn < len(self.memory.backing) and self.memory.backing[gfn] & SWAPPED
        return int(self.slots[gfn]) - 1 if away else None

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
        self.slots[gfns] = slots[there] + 1
        self.count += len(gfns)
        self._clean = clean[there]
        return gfns

    def _give_up_copies(self, gfns: Words) -> tuple[NDArray[np.bool_], Words]:
        """Forget the slots of pages that are about to be taken; return which need no write, and their slots."""
        clean, slots = np.zeros(len(gfns), np.bool_), np.full(len(gfns), NO_SLOT)
        backing = self.memory.backing
        for at in np.flatnonzero(backing[gfns] & CLEAN).tolist():
            gfn = int(gfns[at])
            slots[at] = self.slots[gfn] - 1
            self.slots[gfn] = 0
            clean_backing(backing, gfn, clean=False)
            clean[at] = slots[at] not in self.swap.unwritten
        return clean, slots

    def write(self, gfns: Words, pfns: Words) -> None:
        """Write pages that were admitted, and have been taken from their frames."""
        self.swap.write(self.memory, gfns, self.slots[gfns] - 1, pfns, clean=self._clean)

    def bring(self, vcpu: Vcpu, gfn: int, *, write: bool, commit: MapsCached | None = None) -> Steps[tuple[int, bool]]:
        """Bring a page back, if it is away still; return the cycles of it, and whether its monitor has mapped it.

        `commit` has compiled code do that, from the swap cache, if it can.
        """
        memory, around = self.memory, Around(self.memory, gfn, self._slots_of)
        fetched = yield from self.swap.fetch(vcpu, memory, partial(self.slot_of, gfn), around)
        if fetched is None:
            return 0, False
        if commit and memory.backing[gfn] & CACHED and (cycles := commit(gfn, write)) >= 0:
            self.brought(vcpu.now, fetched)
            return cycles + fetched.cycles, True
        back = self.swap.take_out(vcpu, memory, fetched, around, write=write)
        slot, which = int(self.slots[gfn]) - 1, np.array([gfn])
        memory.fill(back.pfn, self.swap.area.holding(slot).words)
        set_backing(memory.backing, memory.host.frames, gfn, back.pfn, 0)
        self.count -= 1
        memory.returned += 1
        self.swap.lists.returned(memory, which, self.slots[which] - 1)
        if back.slot == NO_SLOT:
            self.slots[gfn] = 0
            self.swap.release(np.array([slot]))
        else:
            clean_backing(memory.backing, gfn, clean=True)
        return back.cycles, False

    def _slots_of(self, window: range) -> Words:
        """Return the slots of those of a range of pages that are away, int64[n]."""
        found = np.empty(len(window), np.int64)
        return found[: find_slots(self.memory.backing, self.slots, window.start, window.stop, found)]

    def brought(self, now: int = 0, fetched: Fetched | None = None) -> None:
        """Note what compiled code has brought back from the swap cache since this was last called.

        `fetched` is the page, if it is one that a vCPU has waited for until `now`.
        """
        swap, memory, host = self.swap, self.memory, self.memory.host
        state = swap.area.state
        count = int(state[_BROUGHT])
        gfns = state[_FIRST : _FIRST + count].copy()
        state[_BROUGHT] = 0
        found, mine = np.empty((3, count), np.int64), (memory.backing, self.slots, swap.cache.words)
        ahead, gone = note_brought(*mine, host.zone, host.frames, memory.owner, gfns, found)
        self.count -= count
        memory.returned += count
        state[_USED] += gone  # they are released here
        swap.came_back(memory, gfns, found[0], ahead, found[1, :gone], now, fetched)

    def words(self, gfn: int) -> Words | None:
        """Return what a page that is away holds; None: zeros, or it is not away."""
        slot = self.slot_of(gfn)
        return None if slot is None else self.swap.area.holding(slot).words

    def forget(self, gfn: int) -> None:
        """Forget what a slot holds of a page, whether that is away or came back, and may be written to then."""
        slot = int(self.slots[gfn]) - 1
        if slot == NO_SLOT:
            return
        if self.memory.backing[gfn] & CLEAN:
            clean_backing(self.memory.backing, gfn, clean=False)
        else:
            self.count -= 1
        self.slots[gfn] = 0
        self.swap.release(np.array([slot]))

    def close(self) -> None:
        """Forget everything: the VM is no more."""
        for gfn in np.flatnonzero(self.slots).tolist():
            self.forget(gfn)
