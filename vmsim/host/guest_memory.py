"""One VM's memory as its host keeps it: where each guest frame lies or its contents are, and how that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NO_FLUSH, Flush, SecondMmu
from vmsim.frames.buddy import State
from vmsim.host.memory import HostMemory
from vmsim.machine.formats import FRAME, PAGE_SHIFT, PRESENT
from vmsim.tables.backing import SMALL_PAGE, SWAPPED, break_up, make_backing, set_backing

__all__ = ["GuestMemory"]

Words = NDArray[np.int64]

_ZEROS = np.zeros(1 << 9, np.int64)


class GuestMemory:
    """The truth of gfn to pfn of one VM, and the one place that takes pages from it, moves them and brings them back.

    Linux has it in the page tables of the process that runs the VM, and tells KVM of each change before it is made
    (virt/kvm/kvm_main.c, `kvm_mmu_notifier_invalidate_range_start`). The paging mode clears its entries (`SecondMmu`);
    whoever asked for the change then has the processors forget (`Flush`).

    Parameters
    ----------
    host : HostMemory
        Whose frames it has.
    words : int64[:]
        Host-physical memory.
    owner : int
        The VM.
    pages : int
        Guest frames.

    Attributes
    ----------
    backing : int64[pages]
        A word for each guest frame (tables/backing.py).
    second : SecondMmu
        The paging mode's entries; given once they exist.
    contents : dict
        By gfn, what a page that was taken held: int64[512] of those that are not zero. Pages of data hold zeros here,
        page tables their entries.
    held : Counter
        By gfn: requests on their way that are to pin the page. It is left where it is until they have.
    taken, returned : int
        Pages that the host took, and that came back.
    """

    second: SecondMmu

    def __init__(self, host: HostMemory, words: Words, *, owner: int, pages: int) -> None:
        self.host = host
        self.words = words
        self.owner = owner
        self.backing: Words = make_backing(pages)
        self.contents: dict[int, Words] = {}
        self.held: Counter[int] = Counter()
        self.taken = 0
        self.returned = 0

    def present(self) -> Words:
        """Return the guest frames that have a host frame, int64[n], ascending."""
        return np.flatnonzero(self.backing & PRESENT)

    @property
    def numbers(self) -> int:
        """How many numbers its pages have: the guest's frames."""
        return len(self.backing)

    def holds(self, number: int) -> bool:
        """Whether a guest frame has a host frame."""
        return bool(self.backing[number] & PRESENT)

    def frame_of(self, gfn: int) -> int:
        """Return the host frame of a guest frame that has one."""
        return int(self.backing[gfn] & FRAME) >> PAGE_SHIFT

    def pinned(self, gfn: int) -> bool:
        """Whether a device works on a page, or is about to."""
        return bool(self.host.pins[self.frame_of(gfn)]) or self.held[gfn] > 0

    def page(self, gfn: int) -> Words:
        """Return what a guest frame holds, wherever that is now, int64[512]."""
        if self.backing[gfn] & PRESENT:
            return self._page(self.frame_of(gfn))
        return self.contents.get(gfn, _ZEROS)

    def arrived(self, gfn: int, pfn: int, order: int) -> None:
        """Note that 2**order guest frames lie in host frames from now on, and bring back what they held."""
        for each in range(gfn, gfn + (1 << order)) if self.contents or self.taken else ():
            if self.backing[each] & SWAPPED:
                self.returned += 1
            if (held := self.contents.pop(each, None)) is not None:
                self._page(pfn + each - gfn)[:] = held
        set_backing(self.backing, gfn, pfn, order)

    def take(self, first: int, count: int, to: int = SWAPPED) -> Flush:
        """Take the pages of `count` guest frames from `first` on, but for those that a device works on.

        Parameters
        ----------
        to : int
            What their words say from now on: SWAPPED keeps what they held, BALLOONED and 0 (never backed) do not.

        Returns
        -------
        Flush
            To be made before anybody uses the frames again. They are the host's, and free.
        """
        gfns = first + np.flatnonzero(self.backing[first : first + count] & PRESENT)
        gfns = gfns[[not self.pinned(gfn) for gfn in gfns.tolist()]]
        flush = NO_FLUSH
        for start, size in _runs(gfns):
            break_up(self.backing, start)
            break_up(self.backing, start + size - 1)
            flush += self.second.zap(start, size)
        if not len(gfns):
            return flush
        pfns = (self.backing[gfns] & FRAME) >> PAGE_SHIFT
        for gfn, pfn in zip(gfns.tolist(), pfns.tolist(), strict=True):
            held = self._page(pfn)
            if held.any():
                if to == SWAPPED:
                    self.contents[gfn] = held.copy()
                held[:] = 0
        self.backing[gfns] = to
        self.taken += len(gfns)
        self.host.frames["rmap"][pfns] = 0
        self.host.give(pfns)
        return flush

    def move(self, gfn: int, pfn: int) -> Flush:
        """Move a page to the host frame `pfn`: contents, entries, reverse map.

        The two frames change hands: who had `pfn` has the old frame from now on, and may use it when the flush has been
        made. Linux: mm/migrate.c, `migrate_folio_unmap` and `_move`.
        """
        break_up(self.backing, gfn)
        flush = self.second.zap(gfn, 1)
        old, frames = self.frame_of(gfn), self.host.frames
        source, target = self._page(old), self._page(pfn)
        if (source != target).any():  # memory that was never written to stays so
            target[:] = source
            source[:] = 0
        whose, state = int(frames["owner"][pfn]), State(int(frames["state"][pfn]))
        self.host.hand_over(np.array([pfn]), self.owner, State(int(frames["state"][old])))
        self.host.hand_over(np.array([old]), whose, state)
        frames["rmap"][old] = frames["rmap"][pfn] = 0
        set_backing(self.backing, gfn, pfn, 0)
        return flush

    def find(self, pfns: Words) -> Words:
        """Return which guest frames lie in some host frames, int64[n].

        -1 stands for what is no page of this memory, lies in a large page, or must stay where it is for a device.
        """
        found = np.full(len(pfns), -1)
        wanted = {int(pfn): at for at, pfn in enumerate(pfns.tolist())}
        small = (self.backing & ~FRAME) == SMALL_PAGE
        near = small & (self.backing >> PAGE_SHIFT >= min(wanted)) & (self.backing >> PAGE_SHIFT <= max(wanted))
        for gfn in np.flatnonzero(near).tolist():
            at = wanted.get(self.frame_of(gfn))
            if at is not None and not self.pinned(gfn):
                found[at] = gfn
        return found

    def _page(self, pfn: int) -> Words:
        return self.words[pfn << 9 : (pfn + 1) << 9]


def _runs(gfns: Words) -> Iterator[tuple[int, int]]:
    """Yield the first and the length of each run of consecutive numbers."""
    for run in np.split(gfns, np.flatnonzero(np.diff(gfns) != 1) + 1):
        if len(run):
            yield int(run[0]), len(run)
