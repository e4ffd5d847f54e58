"""Pages whose next access is to be noticed: NUMA hinting faults (Linux mm/mprotect.c, change_prot_numa).

Linux takes the rights from an entry and keeps the frame in it; a VM's entries are zapped by the MMU notifier, so that
the next access exits, and the host's handler of page faults, which is asked for the page, finds the entry and gives the
rights back (mm/memory.c, do_numa_page). Then it may move the page. Both kinds of memory here have the same verbs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Flush, MapsCached, SecondMmu, Steps, Vcpu
from vmsim.frames.records import State
from vmsim.machine.formats import FRAME, PAGE_SHIFT, PRESENT
from vmsim.machine.memory import read_entry, write_entry
from vmsim.tables.backing import CLEAN, HINTED, OWNED, SWAPPED, hint_each, level_of, page_of, set_backing
from vmsim.tables.pages import clear_pages, clear_words, find_words

__all__ = ["HintedMemory", "HintedPages"]

Words = NDArray[np.int64]
OnHint = Callable[[Vcpu, int], int]


class HintedMemory(ABC):
    """The part of a `GuestMemory` that knows of hints, whose attributes these are.

    Attributes
    ----------
    on_hint : callable or None
        Told which vCPU has accessed a page, by its number, whose next access was to be noticed; returns the cycles of
        what the host does about it. None: nobody wants to know.
    """

    on_hint: OnHint | None = None

    backing: Words
    words: Words
    host: Any
    owner: int
    second: SecondMmu
    held: Counter[int]

    def hint_to(self, on_hint: OnHint) -> None:
        """Have somebody be told of accesses from now on."""
        self.on_hint = on_hint

    def hintable(self, first: int, count: int) -> Words:
        """Return which of `count` pages from `first` on can be hinted, by their numbers, int64[n] ascending.

        Those that a device works on, that others share, and of which the swap device has a copy are left alone. Of a
        large page it is all frames or none, whether they are in the range or not.
        """
        words = self.backing[first : first + count]
        found = first + np.flatnonzero(words & PRESENT)
        if (level_of(words) > 1).any():
            found = np.unique(np.concatenate([found[:0], *(self.whole_page(gfn) for gfn in found.tolist())]))
        pinned = self.host.pins[(self.backing[found] & FRAME) >> PAGE_SHIFT] > 0
        if self.held:
            pinned |= np.array([self.held[gfn] > 0 for gfn in found.tolist()], np.bool_)
        return np.asarray(found[~pinned])

    def whole_page(self, gfn: int) -> Words:
        """Return all guest frames of the page that one lies in, int64[n]."""
        page = page_of(self.backing, gfn, 18)
        order = page[1] if page else 0
        first = gfn & -(1 << order)
        return np.arange(first, min(first + (1 << order), len(self.backing)))

    def hint_each(self, gfns: Words) -> Flush:
        """Have the next access to some of these be noticed, int64[n] ascending."""
        flush = self.second.zap_each(gfns)
        hint_each(self.backing, gfns, hinted=True)
        return flush

    def hinted(self, gfn: int) -> bool:
        """Whether the next access to a page is to be noticed."""
        return bool(self.backing[gfn] & HINTED)

    def away(self, gfn: int) -> bool:
        """Whether a page has to be brought back before its frame is backed, or its next access be noticed."""
        if not 0 <= gfn < len(self.backing):
            return False
        return bool(self.backing[gfn] & (HINTED | SWAPPED)) and (self.hinted(gfn) or self.swapped_out(gfn))

    def bring(self, vcpu: Vcpu, gfn: int, *, write: bool, commit: MapsCached | None = None) -> Steps[tuple[int, bool]]:
        """Bring a page back, or notice an access to it; return the cycles, and whether `commit` has mapped it.

        Raises
        ------
        VmStopped
            It cannot be read.
        """
        if self.backing[gfn] & HINTED:
            hint_each(self.backing, self.whole_page(gfn), hinted=False)
            return self.on_hint(vcpu, gfn) if self.on_hint else 0, False
        return (yield from self.bring_swapped(vcpu, gfn, write=write, commit=commit))

    def frames_each(self, gfns: Words) -> Words:
        """Return the host frames of some guest frames that have one, int64[n]."""
        return np.asarray((self.backing[gfns] & FRAME) >> PAGE_SHIFT)

    def heads(self, gfns: Words) -> Words:
        """Return those of some guest frames that are the first of their page, int64[n]."""
        sizes = np.int64(1) << 9 * np.maximum(level_of(self.backing[gfns]) - 1, 0)
        return np.asarray(gfns[gfns & (sizes - 1) == 0])

    def order_of(self, gfn: int) -> int:
        """Return the order of the page that a guest frame lies in."""
        page = page_of(self.backing, gfn, 18)
        return page[1] if page else 0

    def move_large(self, gfn: int, pfn: int) -> Flush:
        """Move the large page of a guest frame as a whole to the block at `pfn`, as `GuestMemory.move` does a small."""
        order = self.order_of(gfn)
        first, count = gfn & -(1 << order), 1 << order
        flush = self.second.zap(first, count)
        host, old = self.host, int(self.backing[first] & FRAME) >> PAGE_SHIFT
        sources = np.arange(old, old + count)
        holding = np.empty(count, np.bool_)
        clear_words(self.words, np.arange(pfn, pfn + count))
        find_words(self.words, sources, holding)
        for at in np.flatnonzero(holding).tolist():
            self._page(pfn + at)[:] = self._page(old + at)
        clear_pages(self.words, sources[holding])
        whose, state = int(host.frames["owner"][pfn]), State(int(host.frames["state"][pfn]))
        host.hand_over(np.arange(pfn, pfn + count), self.owner, State(int(host.frames["state"][old])))
        host.hand_over(sources, whose, state)
        host.frames["rmap"][old : old + count] = 0
        set_backing(self.backing, host.frames, first, pfn, order)
        return flush

    def movable(self, gfn: int) -> bool:
        """Whether a page lies in a frame of its own, with no device at work on any of it."""
        if not self.backing[gfn] & OWNED:
            return False
        gfns = self.whole_page(gfn)
        pinned = self.host.pins[(self.backing[gfns] & FRAME) >> PAGE_SHIFT].any()
        return not pinned and not any(self.held[each] > 0 for each in gfns.tolist() if self.held)

    def clean_of(self, gfns: Words) -> NDArray[np.bool_]:
        """Return of which pages, int64[n], the swap device has a copy, bool[n]."""
        return np.asarray(self.backing[gfns] & CLEAN != 0)

    @abstractmethod
    def swapped_out(self, gfn: int) -> bool:
        """Whether a page is on the swap device."""

    @abstractmethod
    def bring_swapped(
        self, vcpu: Vcpu, gfn: int, *, write: bool, commit: MapsCached | None = None
    ) -> Steps[tuple[int, bool]]:
        """Bring it back."""

    @abstractmethod
    def _page(self, pfn: int) -> Words:
        """Return the words of a host frame, int64[512]."""


class HintedPages(ABC):
    """The same part of a `NativeMemory`: the program's own entries lose their PRESENT bit, and keep the frame.

    Attributes
    ----------
    hints : bool[frames]
        Which frames' entries have lost it; empty: nobody hints.
    watched : callable
        Has the program's kernel ask of entries that are not present (`guest.granting.Hints`).
    """

    on_hint: OnHint | None = None
    hints: NDArray[np.bool_] = np.zeros(0, np.bool_)
    watched: Callable[[Any], None]

    words: Words
    host: Any
    records: Any
    width: int

    def hint_to(self, on_hint: OnHint) -> None:
        """Have somebody be told of accesses from now on."""
        self.on_hint = on_hint
        self.hints = np.zeros(len(self.host.frames), np.bool_)
        self.watched(self)

    def hintable(self, first: int, count: int) -> Words:
        """Return which of `count` frames from `first` on hold pages that can be hinted, int64[n] ascending."""
        numbers = np.arange(first, min(first + count, len(self.hints)))
        good = self._which(numbers) & (self.host.pins[numbers] == 0)
        numbers = numbers[good]
        entries = read_entry(self.words, self.records["rmap"][numbers].astype(np.int64), self.width)
        return np.asarray(numbers[entries & PRESENT != 0])

    def hint_each(self, pfns: Words) -> Flush:
        """Have the next access to some of these be noticed, int64[n]."""
        places = self.records["rmap"][pfns].astype(np.int64)
        for place in places.tolist():
            entry = int(read_entry(self.words, place, self.width))
            write_entry(self.words, place, np.int64(entry & ~PRESENT), self.width)
        self.hints[pfns] = True
        return self._changed(places)

    def hinted(self, pfn: int) -> bool:
        """Whether the next access to a page is to be noticed."""
        return bool(self.hints[pfn]) if len(self.hints) else False

    def hint_fault(self, vcpu: Vcpu, pfn: int) -> int:
        """Learn of an access whose entry is present again; return the cycles of the host's work.

        Several entries may have led to the frame since it was hinted: it stays then, and each has its fault.
        """
        if not self.holds(pfn):
            return 0
        self.hints[pfn] = False
        return self.on_hint(vcpu, pfn) if self.on_hint else 0

    def frames_each(self, numbers: Words) -> Words:
        """Return the frames: they are the numbers."""
        return numbers

    def heads(self, numbers: Words) -> Words:
        """Return the numbers: all pages are small."""
        return numbers

    def order_of(self, number: int) -> int:
        """Return 0: large pages are not moved."""
        return 0

    def movable(self, number: int) -> bool:
        """Whether a page lies in a frame of its own, with no device at work on it."""
        return self.holds(number) and not self.host.pins[number]

    def clean_of(self, numbers: Words) -> NDArray[np.bool_]:
        """Return of which pages, int64[n], nobody may write to because the swap device has a copy: none."""
        return np.zeros(len(numbers), np.bool_)

    @abstractmethod
    def holds(self, number: int) -> bool:
        """Whether a frame is a page of the program that may be taken."""

    @abstractmethod
    def _which(self, numbers: Words) -> NDArray[np.bool_]:
        """Return which frames are such pages, bool[n]."""

    @abstractmethod
    def _changed(self, places: Words) -> Flush:
        """Note that entries at some places say something else."""
