"""What the memory of a VM does with huge pages of the host's: the pages of 2 MiB of guest frames put into one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Flush, SecondMmu
from vmsim.host.swap.pages import SwappedPages
from vmsim.machine.formats import ENTRIES, FRAME, PAGE_SHIFT, PRESENT
from vmsim.tables.backing import CLEAN, HINTED, OWNED, SHARED, SWAPPED, level_of, set_backing
from vmsim.tables.pages import clear_pages, clear_words, find_words

__all__ = ["HUGE_ORDER", "CollapsibleMemory", "Ranges"]

Words = NDArray[np.int64]

HUGE_ORDER = 9


class Ranges(NamedTuple):
    """What lies in ranges of 512 guest frames, int64[n] each: frames of each kind."""

    small: Words  # that have a frame of their own, in pages of 4 KiB
    shared: Words
    swapped: Words
    none: Words  # that have nothing: never backed, or in the balloon
    huge: NDArray[np.bool_]  # all of them in one page already


class CollapsibleMemory(ABC):
    """The part of a `GuestMemory` that knows of huge pages, whose attributes these are.

    Attributes
    ----------
    collapses : bool
        Its host puts pages together into large ones.
    """

    collapses = False

    backing: Words
    words: Words
    host: Any
    second: SecondMmu
    swapped: SwappedPages | None
    contents: dict[int, Words]
    held: Counter[int]
    returned: int

    @property
    def ranges(self) -> int:
        """Whole ranges of 512 guest frames."""
        return len(self.backing) >> HUGE_ORDER

    def look(self, first: int, count: int) -> Ranges:
        """Return what lies in `count` ranges from number `first` on."""
        words = self.backing[first << HUGE_ORDER : (first + count) << HUGE_ORDER].reshape(count, ENTRIES)
        own = (words & OWNED) != 0
        huge = own & (level_of(words) > 1)
        shared = (words & (SHARED | CLEAN)) == SHARED
        swapped = (words & SWAPPED) != 0
        small, apart, away = (part.sum(axis=1) for part in (own & ~huge, shared, swapped))
        none = ENTRIES - small - apart - away - huge.sum(axis=1)
        return Ranges(small, apart, away, none, huge.any(axis=1))

    def collapse(self, number: int, pfn: int) -> Flush:
        """Have a range of 512 guest frames lie in one page of the VM's, at `pfn`: contents, entries, reverse map.

        Linux: mm/khugepaged.c, collapse_huge_page: the entries go, of which KVM is told, what they mapped is copied,
        and a huge one comes. The next access has the page mapped as a whole. Pages that others share are copied, clean
        ones lose their slot, and frames that had nothing hold zeros.

        Returns
        -------
        Flush
            To be made before anybody uses the frames again that the pages lay in. They are the host's, and free.
        """
        first = number << HUGE_ORDER
        flush = self.second.zap(first, ENTRIES)
        words = self.backing[first : first + ENTRIES]
        clear_words(self.words, np.arange(pfn, pfn + ENTRIES))
        if self.swapped:
            for gfn in (first + np.flatnonzero(words & CLEAN)).tolist():
                self.swapped.forget(gfn)
        for at in np.flatnonzero(words & SHARED).tolist():
            self._page(pfn + at)[:] = self.page(first + at)
            self._leave(first + at)
        for at in np.flatnonzero(words & SWAPPED).tolist():
            self.returned += 1
            if (held := self.contents.pop(first + at, None)) is not None:
                self._page(pfn + at)[:] = held
        own = np.flatnonzero(words & (PRESENT | HINTED))
        old = (words[own] & FRAME) >> PAGE_SHIFT
        holding = np.empty(len(old), np.bool_)
        find_words(self.words, old, holding)
        for at, source in zip(own[holding].tolist(), old[holding].tolist(), strict=True):
            self._page(pfn + at)[:] = self._page(source)
        clear_pages(self.words, old[holding])
        self.host.frames["rmap"][old] = 0
        set_backing(self.backing, self.host.frames, first, pfn, HUGE_ORDER)
        self.host.give(old)
        return flush

    def busy(self, number: int) -> bool:
        """Whether a device works on a page of a range, or is about to."""
        first = number << HUGE_ORDER
        words = self.backing[first : first + ENTRIES]
        pfns = (words[words & (OWNED | SHARED) != 0] & FRAME) >> PAGE_SHIFT
        held = any(count > 0 and first <= gfn < first + ENTRIES for gfn, count in self.held.items())
        return held or bool(self.host.pins[pfns].any())

    @abstractmethod
    def page(self, gfn: int) -> Words:
        """Return what a guest frame holds, wherever that is now, int64[512]."""

    @abstractmethod
    def _page(self, pfn: int) -> Words:
        """Return the words of a host frame, int64[512]."""

    @abstractmethod
    def _leave(self, gfn: int, stable: int | None = None) -> None:
        """Note that a page lies in its shared frame no more."""
