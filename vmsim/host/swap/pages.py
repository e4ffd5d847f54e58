"""The pages of one VM that are swapped out, and those that came back and have a slot still."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import MapsCached, Steps, Stop, SwapPlace, Vcpu, VmStopped
from vmsim.frames.buddy import hand_over
from vmsim.frames.records import State
from vmsim.host.swap.area import NO_SLOT
from vmsim.host.swap.cache import AHEAD, Around, Fetched, leave
from vmsim.host.swap.readahead import MAX_ORDER, note_found
from vmsim.host.swap.reading import HERE, IN_CACHE, UNREADABLE, begin_read, look
from vmsim.host.swap.swap import MAJOR, MINOR, Swap
from vmsim.jit import kernel, of_one_type
from vmsim.machine.formats import ENTRIES, FRAME, PAGE_SHIFT
from vmsim.machine.memory import zeroed
from vmsim.tables.backing import CACHED, CLEAN, SMALL_PAGE, SWAPPED, clean_backing, set_backing
from vmsim.tables.pages import clear_pages

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
def give_up_copies(words, backing, slots, gfns, found, flags):  # type: ignore[no-untyped-def]
    """Forget the slots of pages that are about to be taken, int64[n], and find out what they hold.

    Parameters
    ----------
    words : int64[:]
        Host-physical memory.
    backing, slots : int64[:]
        Where the VM's pages lie, and as of `SwappedPages`.
    gfns : int64[n]
        The pages.
    found : int64[2, n]
        Filled: their frames; the slots that they had, or NO_SLOT.
    flags : bool[2, n]
        Filled: whether they had one; whether they hold anything but zeros.

    Returns
    -------
    (clean, holding) : tuple of int
        How many did, and how many do.
    """
    clean, holding = 0, 0
    for at in range(len(gfns)):
        word = backing[gfns[at]]
        found[0, at] = (word & FRAME) >> PAGE_SHIFT
        found[1, at] = NO_SLOT
        flags[0, at] = word & CLEAN != 0
        if flags[0, at]:
            found[1, at] = slots[gfns[at]] - 1
            slots[gfns[at]] = 0
            backing[gfns[at]] = word & FRAME | SMALL_PAGE
            clean += 1
        first, any_ = found[0, at] * ENTRIES, np.int64(0)
        for place in range(first, first + ENTRIES):  # all of them: eight at a time, in machine code
            any_ |= words[place]
        flags[1, at] = any_ != 0
        holding += any_ != 0
    return clean, holding


@kernel
def note_brought(backing, slots, cache, users, state, zones, frames, owner, window, turns, found):  # type: ignore[no-untyped-def]
    """Note that pages of the swap cache are their VM's, those that compiled code has brought back.

    Parameters
    ----------
    backing, slots : int64[:]
        Where the VM's pages lie, and as of `SwappedPages`.
    cache : int64[:, 5]
        The swap cache, which they leave.
    users : int32[:]
        How many refer to each slot: one fewer where a page gives its slot up.
    state : int64[:]
        What compiled code knows of the swap, by `SwapPlace`: the pages are in it, and are not then.
    zones, frames, owner
        As of `hand_over`.
    window, turns : int64[:], bool
        As of `readahead.note_found`.
    found : int64[4, n]
        Filled: the pages; their slots; the slots that are free now; scratch.

    Returns
    -------
    (count, ahead, freed) : tuple of int
        How many pages there are, how many of them were read ahead, and how many slots are free now.
    """
    count, ahead, freed = state[_BROUGHT], 0, 0
    for at in range(count):
        gfn = state[_FIRST + at]
        word = backing[gfn]
        slot = slots[gfn] - 1
        found[0, at] = gfn
        found[1, at] = slot
        found[3, at] = (word & FRAME) >> PAGE_SHIFT
        ahead += leave(cache, slot) & AHEAD != 0
        if word & CLEAN == 0:
            slots[gfn] = 0
            users[slot] -= 1
            if users[slot] == 0:
                found[2, freed] = slot
                freed += 1
            else:
                state[_USED] += 1  # others have it still
    hand_over(zones, frames, found[3, :count], owner, np.int64(State.GUEST))
    note_found(window, found[0, count - 1], ahead, turns)
    state[_BROUGHT] = 0
    return count, ahead, freed


_look, _begin_read, _note_brought = map(of_one_type, (look, begin_read, note_brought))


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
        self._window = swap.window_of(memory)
        self._most = min(swap.most, 1 << MAX_ORDER)
        self._steady = swap.steady
        swap.register(memory.owner)

    def slot_of(self, gfn: int) -> int | None:
        """Return the slot of a page that is away; None: it is not."""
        away = 0 <= gfn < len(self.slots) and self.memory.backing[gfn] & SWAPPED
        return int(self.slots[gfn]) - 1 if away else None

    def admit(self, gfns: Words) -> Words:
        """Find a slot for each of some pages that are about to be taken; return those that have one.

        What they hold is on its way there, and zeros are in their frames.
        """
        memory, swap, count = self.memory, self.swap, len(gfns)
        found, flags = np.empty((2, count), np.int64), np.empty((2, count), np.bool_)
        (pfns, slots), (clean, held) = found, flags
        cleans, holding = give_up_copies(memory.words, memory.backing, self.slots, gfns, found, flags)
        if cleans and swap.unwritten:
            clean &= [slot not in swap.unwritten for slot in slots.tolist()]
            cleans = int(np.count_nonzero(clean))
        words = None
        if holding:
            pages = zip(held.tolist(), pfns.tolist(), strict=True)
            words = [memory.words[pfn << 9 : (pfn + 1) << 9].copy() if any_ else None for any_, pfn in pages]
        if cleans:
            wanted = np.flatnonzero(~clean)
            some, contents = gfns[wanted], words and [words[at] for at in wanted.tolist()]
            slots[wanted] = swap.admit_each(memory, some, memory.identity.of_each(some), contents, slots[wanted])
        else:
            slots = swap.admit_each(memory, gfns, memory.identity.of_each(gfns), words, slots)
        there = slots != NO_SLOT
        if holding:
            clear_pages(memory.words, pfns[there & held])
        if not there.all():
            gfns, slots, clean = gfns[there], slots[there], clean[there]
        self.slots[gfns] = slots + 1
        self.count += len(gfns)
        self._clean = clean
        return gfns

    def write(self, gfns: Words, pfns: Words) -> None:
        """Write pages that were admitted, and have been taken from their frames."""
        self.swap.write(self.memory, gfns, self.slots[gfns] - 1, pfns, clean=self._clean)

    def bring(self, vcpu: Vcpu, gfn: int, *, write: bool, commit: MapsCached | None = None) -> Steps[tuple[int, bool]]:
        """Bring a page back, if it is away still; return the cycles of it, and whether its monitor has mapped it.

        `commit` has compiled code do that, from the swap cache, if it can.
        """
        memory, around = self.memory, Around(self.memory, gfn, self._slots_of)
        if self._steady:
            fetched = yield from self._fetch(vcpu, gfn)
        else:
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

    def _fetch(self, vcpu: Vcpu, gfn: int) -> Steps[Fetched | None]:
        """Do what `Swap.fetch` does, by compiled code as far as nobody waits.

        Raises
        ------
        VmStopped
            It cannot be read.
        """
        memory, swap = self.memory, self.swap
        where = memory.backing, self.slots, swap.cache.words
        start, waited, spent = vcpu.now, False, 0
        while True:
            found = np.empty((5, self._most + 1), np.int64)
            count = _look(*where, self._window.words, gfn, self._most, found)
            if count == HERE:
                return None
            slot = int(self.slots[gfn]) - 1
            if count == IN_CACHE:
                vcpu.kind = max(vcpu.kind, MAJOR if waited else MINOR)
                return Fetched(slot, start, waited, spent)
            if count == UNREADABLE:
                raise VmStopped(Stop.SWAP_READ, who=swap.who)
            if count > 0:
                pfns = yield from swap.frames_for(vcpu, memory.owner, count)
                read = swap.begin_read(partial(_begin_read, *where, gfn, slot), pfns, found)
                if read < 0:
                    continue
                swap.counts[memory.owner]["read_ahead"] += read - 1
                spent += (read - 1) * swap.costs.swap_page
            yield from swap.await_page(vcpu, memory, slot)
            waited = True

    def _slots_of(self, window: range) -> Words:
        """Return the slots of those of a range of pages that are away, int64[n]."""
        found = np.empty(len(window), np.int64)
        return found[: find_slots(self.memory.backing, self.slots, window.start, window.stop, found)]

    def brought(self, now: int = 0, fetched: Fetched | None = None) -> None:
        """Note what compiled code has brought back from the swap cache since this was last called.

        `fetched` is the page, if it is one that a vCPU has waited for until `now`.
        """
        swap, memory, host = self.swap, self.memory, self.memory.host
        found = np.empty((4, int(swap.area.state[_BROUGHT])), np.int64)
        mine = memory.backing, self.slots, swap.cache.words, swap.area.users_of, swap.area.state
        given = *mine, host.zone, host.frames, memory.owner, self._window.words, swap.turns, found
        count, ahead, freed = _note_brought(*given)
        self.count -= count
        memory.returned += count
        swap.came_back(memory, found[0], found[1], ahead, found[2, :freed], now, fetched)

    def words(self, gfn: int) -> Words | None:
        """Return what a page that is away holds; None: zeros, or it is not away."""
        slot = self.slot_of(gfn)
        return None if slot is None else self.swap.area.holding(slot).words

    def forget(self, gfn: int) -> None:
        """Forget what a slot holds of a page, whether that is away or came back, and may be written to then."""
        self.forget_each(np.array([gfn]))

    def forget_each(self, gfns: Words) -> None:
        """Do the same of some pages, int64[n]."""
        gfns = gfns[self.slots[gfns] > 0]
        if not len(gfns):
            return
        slots, backing = self.slots[gfns] - 1, self.memory.backing
        clean = gfns[backing[gfns] & CLEAN != 0]
        backing[clean] = backing[clean] & FRAME | SMALL_PAGE
        self.count -= len(gfns) - len(clean)
        self.slots[gfns] = 0
        self.swap.release(slots)

    def close(self) -> None:
        """Forget everything: the VM is no more."""
        self.forget_each(np.flatnonzero(self.slots))
