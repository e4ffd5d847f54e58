"""Memory of a program on the host itself, as the host's reclaim knows it: pages by frame, found by the reverse map."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NO_FLUSH, Flush, Vcpu
from vmsim.frames.buddy import owned
from vmsim.frames.records import State
from vmsim.host.bare import BareFrames
from vmsim.host.hinted_memory import HintedPages
from vmsim.host.identity import PageIdentity
from vmsim.host.swap.native_pages import SwappedSpaces
from vmsim.host.swap.swap import Swap
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT, WRITE
from vmsim.machine.memory import read_entry, width_of, write_entry
from vmsim.tables.pages import clear_entries, move_words, places_of
from vmsim.tables.ranges import age_pages, lead_elsewhere

__all__ = ["NativeMemory"]

Words = NDArray[np.int64]

_ANYWHERE = -1  # the number of a shared page: its entries are found by its frame


class Counts(Protocol):
    """What a program's kernel knows of frames that several entries map."""

    broken: int

    def counts(self) -> NDArray[np.int32]:
        """Return how many entries map each frame besides the first."""
        ...


class SecondTables(Protocol):
    """Tables that say what a program's own do, and that a processor may walk in their place.

    Attributes
    ----------
    kept : tuple of int
        Addresses [first, limit) whose pages stay where they are: what they hold is simulated.
    walked : bool
        A processor walks them.
    """

    @property
    def kept(self) -> tuple[int, int]: ...

    @property
    def walked(self) -> bool: ...

    def follow(self, places: Words) -> None:
        """Have them say what the program's entries at some places (hpas, int64[n]) say now."""

    def accessed(self, places: Words, *, clear: bool) -> NDArray[np.bool_]:
        """Return by which of their entries, those for the program's at some places, pages were accessed, bool[n]."""
        ...


class NativeMemory(HintedPages):
    """The small pages of a program that one entry of its tables maps; what several map is left alone.

    A page that comes to share a frame has its entry lead there, read-only (mm/ksm.c, replace_page); the kernel copies
    it when it is written to.

    A page that is taken has its entry cleared (Linux, mm/rmap.c, try_to_unmap_one), and the next access is a page fault
    of the program's kernel, which maps another frame. What data pages held is not simulated, and tables are not taken.
    A page that is moved has its entry lead to the new frame (mm/migrate.c, `remove_migration_pte`).

    Parameters
    ----------
    frames : BareFrames
        Where its frames come from.
    words : int64[:]
        Physical memory.
    levels : int
        Of the program's tables.
    seconds : SecondTables, optional
        Tables that say the same as the program's.

    Attributes
    ----------
    able : callable
        Whether the program's kernel is at work on no entries that it has read.
    taken, returned : int
        Pages that the host took; which of them came back nobody tells.
    merged, broken : int
        As of `GuestMemory`.
    sharing : Counts
        How many entries of the program map each frame; given once its kernel is there.
    roots : callable
        Returns the roots (hpas) of all its processes.
    spaces, hold_back : callable
        As of `SwappedSpaces`.
    told : callable
        Tells the program's kernel that there is a swap device.
    swapped : SwappedSpaces or None
        Its pages on the host's swap device; None: there is none.
    identity : PageIdentity
        What its pages hold.
    forget : callable
        As of `GuestMemory`.
    """

    flushes_each = False  # a batch's entries are flushed together, and accessed flags need no flush
    sharing: Counts
    roots: Callable[[], list[int]]
    spaces: Callable[[], Iterable[Any]]
    hold_back: Callable[[], None]
    told: Callable[[SwappedSpaces], None]
    identity: PageIdentity
    forget: Callable[[Flush, Vcpu | None], int]
    able: Callable[[], bool]

    def __init__(self, frames: BareFrames, words: Words, *, levels: int, seconds: SecondTables | None = None) -> None:
        self.frames = frames
        self.host = frames.host
        self.words = words
        self.owner = frames.owner
        self.levels = levels
        self.width = width_of(levels)
        self.second = self
        self.seconds = seconds
        self.able = lambda: True
        self.taken = self.returned = 0
        self.merged = 0
        self.swapped: SwappedSpaces | None = None
        self.records = frames.frames
        self.forget = lambda flush, vcpu: 0
        frames.left = self._left

    @property
    def broken(self) -> int:
        """Pages that the program's kernel has copied out of shared frames."""
        return self.sharing.broken

    @property
    def numbers(self) -> int:
        """How many numbers its pages have: the host's frames."""
        return len(self.frames.frames)

    def swap_to(self, swap: Swap) -> None:
        """Have pages that are taken go to a swap device from now on."""
        self.swapped = SwappedSpaces(swap, self, self.spaces, self.hold_back)
        self.frames.freed = self.swapped.freed
        self.told(self.swapped)

    def cached(self, numbers: Words, pfns: Words) -> None:
        """Learn nothing: its kernel asks for what is away."""

    def uncached(self, numbers: Words) -> None:
        """Learn nothing."""

    @property
    def away_count(self) -> int:
        """Pages on the swap device."""
        return self.swapped.count if self.swapped else 0

    def whole(self, numbers: Words) -> Words:
        """Return the numbers, ascending: each is a page of its own."""
        return np.sort(numbers)

    def holds_each(self, numbers: Words) -> NDArray[np.bool_]:
        """Return which frames are pages of the program that may be taken, bool[n]."""
        return self._which(numbers)

    def places_of(self, pfns: Words) -> tuple[Words, Words]:
        """Return where the pages in some frames are mapped: roots of spaces (hpas), and the pages' numbers there."""
        return places_of(self.records, pfns, self.levels, self.width)

    @property
    def tables(self) -> int:
        """How many numbers tables have: they are frames."""
        return self.numbers

    def tables_of(self, numbers: Words) -> Words:
        """Return the frame of the table that maps each of some pages, int64[n]."""
        return np.asarray(self.records["rmap"][numbers], np.int64) >> PAGE_SHIFT

    def entries_of(self, tables: Words, mapping: Words) -> Words:
        """Return how many entries of some tables a walk looks at: those of mapped regions, which map pages."""
        return mapping

    def around(self, number: int, count: int) -> Words:
        """Return pages around one, by the entries of its table (mm/vmscan.c, lru_gen_look_around)."""
        place = int(self.records["rmap"][number])
        size = 4 if self.width == 10 else 8
        table, index = place & -(1 << PAGE_SHIFT), (place & 0xFFF) // size
        first = min(max(index - count // 2, 0), (1 << self.width) - count)
        entries = read_entry(self.words, table + size * np.arange(first, first + count), self.width)
        found = (entries & FRAME) >> PAGE_SHIFT
        return np.asarray(found[entries & PRESENT != 0])

    def holds(self, number: int) -> bool:
        """Whether a frame is a page of the program that may be taken."""
        return bool(self._which(np.array([number]))[0])

    def present(self) -> Words:
        """Return the frames that are such pages, int64[n], ascending."""
        mine = owned(self.frames.zone, self.frames.frames, self.frames.owner)
        return mine[self._which(mine)]

    def _which(self, numbers: Words) -> NDArray[np.bool_]:
        """Return which frames are pages of the program that one small entry maps, bool[n]."""
        records = self.frames.frames
        places = records["rmap"][numbers]
        mine = (records["owner"][numbers] == self.frames.owner) & (records["state"][numbers] == State.GUEST)
        entries = read_entry(self.words, np.maximum(places, 0), self.width)
        there = entries & PRESENT != 0
        if len(self.hints):
            there |= self.hints[numbers] & (entries != 0)
        small = there & (entries & LARGE == 0)
        found: NDArray[np.bool_] = mine & (places > 0) & small & ((entries & FRAME) >> PAGE_SHIFT == numbers)
        if self.seconds and self.seconds.kept[1]:
            first, limit = (address >> PAGE_SHIFT for address in self.seconds.kept)
            there = np.flatnonzero(found)
            pages = self.places_of(numbers[there])[1]
            found[there[(first <= pages) & (pages < limit)]] = False
        return found

    def _changed(self, places: Words) -> Flush:
        """Note that entries at some places say something else; return what processors are to forget."""
        if self.seconds:
            self.seconds.follow(places)
            return Flush(linear=True, nested=self.seconds.walked)
        return Flush(linear=True)

    def frame_of(self, number: int) -> int:
        """Return the frame: it is the number."""
        return number

    def pinned(self, number: int) -> bool:
        """Whether a device works on a page."""
        return bool(self.frames.host.pins[number])

    def can_share(self, number: int) -> bool:
        """Whether a page can lie in a shared frame: no device works on it, and it holds what its entry says of it."""
        return not self.pinned(number) and not (self.swapped and self.swapped.holds_other(number))

    def take(self, first: int, count: int) -> Flush:
        """Take those of `count` frames from `first` on that are such pages; they are the host's, and free."""
        return self.take_each(np.array([pfn for pfn in range(first, first + count) if self.holds(pfn)], np.int64))

    def take_each(self, pfns: Words) -> Flush:
        """Take pages of the program, int64[n], but for those that a device works on, or that are none any more.

        They go to the swap device if there is one; those for which that has no slot stay.
        """
        pfns = pfns[(self.host.pins[pfns] == 0) & self._which(pfns)]
        if self.swapped:
            taken = self.swapped.take(pfns)
            pfns = taken.pages
        if not len(pfns):
            return NO_FLUSH
        places = self.records["rmap"][pfns].astype(np.int64)
        clear_entries(self.words, places, self.width)
        flush = self._changed(places)
        self.records["rmap"][pfns] = 0
        self.taken += len(pfns)
        if self.swapped:
            self.frames.held -= len(pfns)
            self.swapped.write(taken)
        else:
            self.frames.give(pfns, 0)
        return flush

    def find(self, pfns: Words) -> Words:
        """Return the numbers of the pages in some frames, int64[n]; -1 where there is none that may be moved now."""
        free = self._which(pfns) & (self.host.pins[pfns] == 0)
        return np.where(free & self.able(), pfns, -1)

    def move(self, number: int, pfn: int) -> Flush:
        """Move a page to the frame `pfn`, which is its number from then on; the two frames change hands.

        As `GuestMemory.move`. Linux unmaps it meanwhile (mm/migrate.c, `try_to_migrate`), so that who accesses it waits
        for the copy; here the entry leads to the new frame at once.
        """
        place, records = np.array([self.records["rmap"][number]], np.int64), self.records
        entry = int(read_entry(self.words, place[0], self.width))
        write_entry(self.words, place[0], np.int64(entry & ~FRAME | PRESENT | pfn << PAGE_SHIFT), self.width)
        move_words(self.words, number, pfn)
        whose, state = int(records["owner"][pfn]), State(int(records["state"][pfn]))
        self.host.hand_over(np.array([pfn]), self.owner, State.GUEST)
        self.host.hand_over(np.array([number]), whose, state)
        records["rmap"][number], records["rmap"][pfn] = 0, place[0]
        if self.swapped:
            self.swapped.moved(number, pfn)
        return self._changed(place)

    def share(self, number: int, pfn: int) -> Flush:
        """Have a page lie in a frame that others read too, or its own become such a one; as `GuestMemory.share`.

        Raises
        ------
        ValueError
            The frame is no small page of one entry, or `pfn` is not shared.
        """
        shared = self.host.shared
        if not self.holds(number) or (pfn not in shared and pfn != number):
            raise ValueError(f"frame {number} cannot come to share frame {pfn}")
        if not self.can_share(number):
            return NO_FLUSH
        if self.swapped:
            self.swapped.freed(np.array([number]))
        place = int(self.frames.frames["rmap"][number])
        entry = int(read_entry(self.words, place, self.width))
        write_entry(self.words, place, np.int64(entry & ~FRAME & ~WRITE | PRESENT | pfn << PAGE_SHIFT), self.width)
        flush = self._changed(np.array([place]))
        if pfn == number:
            self.frames.held -= 1
            self.host.make_shared(pfn)
        else:
            self.frames.frames["rmap"][number] = 0
            self.frames.give(np.array([number]), 0)
        if any(memory is self for memory, _ in shared.users(pfn)):
            self.sharing.counts()[pfn] += 1
        shared.add(pfn, self, _ANYWHERE)
        self.merged += 1
        return flush

    def close(self) -> None:
        """Leave all shared frames: the program is no more."""
        for pfn in {pfn for pfn, _ in self.host.shared.of(self.owner)}:
            self._left(pfn)
        if self.swapped:
            self.swapped.close()

    def forget_all(self, flush: Flush) -> None:
        """Have the processors forget what a flush says."""
        self.forget(flush, None)

    def leave_frame(self, number: int) -> Flush:
        """Clear nothing: the entries are changed at once. What is kept of them is to be forgotten."""
        return Flush(linear=True, nested=bool(self.seconds and self.seconds.walked))

    def enter_frame(self, numbers: list[int], old: int, new: int) -> None:
        """Have the entries that led to a shared frame lead to another; they are found by all tables.

        Linux finds them by the areas of memory that the page can be in (mm/ksm.c, `rmap_walk_ksm`).
        """
        counts = self.sharing.counts()
        places = np.empty(int(counts[old]) + 1, np.int64)
        for root in self.roots():
            count = lead_elsewhere(self.words, root, self.levels, old, new, places)
            if self.seconds:
                self.seconds.follow(places[:count])
        counts[new], counts[old] = counts[old], 0

    def _left(self, pfn: int) -> None:
        """Note that no entry of the program leads to a shared frame any more."""
        if self.host.shared.remove_owner(pfn, self.owner):
            self.host.free_shared(pfn)

    def age(self, first: int, count: int, *, clear: bool) -> NDArray[np.bool_]:
        """Return which frames were accessed, by the A flags of their entries; `clear` them."""
        found, numbers = np.zeros(count, np.bool_), np.arange(first, first + count)
        mine = self._which(numbers)
        found[mine] = self.age_each(numbers[mine], clear=clear)
        return found

    def age_each(self, numbers: Words, *, clear: bool) -> NDArray[np.bool_]:
        """Do the same to some frames, int64[n], all of them pages of the program."""
        found = np.zeros(len(numbers), np.bool_)
        age_pages(self.words, self.records, numbers, self.width, clear, found)
        if self.seconds:
            found |= self.seconds.accessed(self.records["rmap"][numbers].astype(np.int64), clear=clear)
        return found
