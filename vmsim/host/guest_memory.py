"""One VM's memory as its host keeps it: where each guest frame lies or its contents are, and how that changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NO_FLUSH, Flush, Vcpu
from vmsim.frames.buddy import use
from vmsim.frames.records import State
from vmsim.host.hinted_memory import HintedMemory
from vmsim.host.huge_memory import CollapsibleMemory
from vmsim.host.identity import PageIdentity
from vmsim.host.memory import HostMemory
from vmsim.host.swap.memory import SwappableMemory
from vmsim.host.swap.pages import SwappedPages
from vmsim.machine.formats import FRAME, PAGE_SHIFT
from vmsim.tables.backing import (
    BALLOONED,
    CLEAN,
    CLEAN_PAGE,
    HINTED_PAGE,
    OWNED,
    SHARED,
    SMALL_PAGE,
    SWAPPED,
    UNBACKED,
    break_up,
    break_up_each,
    clean_backing,
    find_takeable,
    make_backing,
    page_of,
    set_backing,
    share_backing,
    shared_frame,
    take_backing,
)
from vmsim.tables.pages import move_words
from vmsim.tables.words import places_of

__all__ = ["GuestMemory"]

Words = NDArray[np.int64]
_ZEROS = np.zeros(1 << 9, np.int64)


class GuestMemory(SwappableMemory, CollapsibleMemory, HintedMemory):
    """The truth of gfn to pfn of one VM, and the one place that takes pages from it, moves them and brings them back.

    Linux has it in the page tables of the process that runs the VM, and tells KVM of each change first
    (`kvm_mmu_notifier_invalidate_range_start`). The paging mode clears its entries; then processors forget (`Flush`).

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
    merged, broken : int
        Pages that came to lie in a shared frame, and that were copied out of one because they were written to.
    identity : PageIdentity
        What its pages hold.
    swapped : SwappedPages or None
        Its pages on the host's swap device; None: there is none, and a page that was taken comes back for nothing.
    logged : bool
        A dirty log clears the dirty flags of its entries.
    forget : callable
        Has the VM's processors forget a flush, those of a vCPU that has left the guest for it without being told;
        returns the cycles that this takes.
    holds_table : callable
        Whether the guest uses a frame as a page table: its words mean something. Those of other pages do not.
    """

    flushes_each = True  # the processors are told of each page that is unmapped or found accessed (KVM)
    identity: PageIdentity
    forget: Callable[[Flush, Vcpu | None], int]

    def __init__(self, host: HostMemory, words: Words, *, owner: int, pages: int) -> None:
        self.host = host
        self.words = words
        self.owner = owner
        self.backing: Words = make_backing(pages)
        self.contents: dict[int, Words] = {}
        self.held: Counter[int] = Counter()
        self.taken = self.returned = self.merged = self.broken = 0
        self.swapped: SwappedPages | None = None
        self.logged = False
        self.forget = lambda flush, vcpu: 0
        self.holds_table = lambda gfn: True

    def present(self) -> Words:
        """Return the guest frames that have a host frame of their own, int64[n], ascending."""
        return places_of(self.backing, OWNED)

    def shared(self) -> Words:
        """Return the guest frames that lie in a shared frame, int64[n], ascending."""
        return places_of(self.backing, SHARED | CLEAN, SHARED)

    def address_of(self, gpa: int) -> int:
        """Return the hpa behind a gpa, wherever its page lies, or UNBACKED."""
        gfn = gpa >> PAGE_SHIFT
        if not 0 <= gfn < len(self.backing) or not self.backing[gfn] & (OWNED | SHARED):
            return UNBACKED
        return int(self.backing[gfn] & FRAME) | gpa & (1 << PAGE_SHIFT) - 1

    @property
    def numbers(self) -> int:
        """How many numbers its pages have: the guest's frames."""
        return len(self.backing)

    def holds(self, number: int) -> bool:
        """Whether a guest frame has a host frame of its own."""
        return bool(self.backing[number] & OWNED)

    def holds_each(self, numbers: Words) -> NDArray[np.bool_]:
        """Return which of some guest frames, int64[n], have a host frame of their own, bool[n]."""
        return np.asarray(self.backing[numbers] & OWNED != 0)

    def frame_of(self, gfn: int) -> int:
        """Return the host frame of a guest frame that has one."""
        return int(self.backing[gfn] & FRAME) >> PAGE_SHIFT

    def pinned(self, gfn: int) -> bool:
        """Whether a device works on a page, or is about to."""
        return bool(self.host.pins[self.frame_of(gfn)]) or self.held[gfn] > 0

    def can_share(self, gfn: int) -> bool:
        """Whether a page can lie in a shared frame: no device works on it."""
        return not self.pinned(gfn)

    def page(self, gfn: int) -> Words:
        """Return what a guest frame holds, wherever that is now, int64[512]."""
        if self.backing[gfn] & (OWNED | SHARED):
            return self._page(self.frame_of(gfn))
        if self.swapped and (words := self.swapped.words(gfn)) is not None:
            return words
        return self.contents.get(gfn, _ZEROS)

    @property
    def elsewhere(self) -> bool:
        """Whether tables of the guest may lie where `host_address` does not find them."""
        return bool(self.contents or len(self.host.shared) or self.away_count or self.on_hint)

    def arrived(self, gfn: int, pfn: int, order: int) -> None:
        """Note that 2**order guest frames lie in host frames from now on, and bring back what they held."""
        for each in range(gfn, gfn + (1 << order)) if self.contents or self.taken else ():
            if self.backing[each] & SWAPPED:
                self.returned += 1
                self.fill(pfn + each - gfn, self.contents.pop(each, None))
        set_backing(self.backing, self.host.frames, gfn, pfn, order)

    def take(self, first: int, count: int, to: int = SWAPPED) -> Flush:
        """Take the pages of `count` guest frames from `first` on, but for those that a device works on.

        Of a shared frame that is this memory's part alone, as where Linux unmaps a range of one process
        (mm/memory.c, zap_present_ptes); the frame is free when the last page has left it. Reclaim of Linux goes by
        frames, and takes a shared one from all (mm/vmscan.c, try_to_unmap); here whoever takes pages names VMs.

        Parameters
        ----------
        to : int
            What their words say from now on: SWAPPED keeps what they held, BALLOONED and 0 (never backed) do not.

        Returns
        -------
        Flush
            To be made before anybody uses the frames again. They are the host's, and free.
        """
        flush, swapped = NO_FLUSH, self.swapped if to == SWAPPED else None
        words = self.backing[first : first + count]
        shared = words & (SHARED | CLEAN) == SHARED if swapped is None else _ZEROS[:0]
        for gfn in (first + np.flatnonzero(shared)).tolist():
            flush += self.second.zap(gfn, 1)
            held = self.page(gfn)
            if to == SWAPPED and held.any():
                self.contents[gfn] = held.copy()
            self._leave(gfn)
            self.backing[gfn] = to
            self.taken += 1
        if self.swapped and not swapped:
            self._leave_swap(first, count, to)
        return flush + self.take_each(first + np.flatnonzero(words & OWNED), to)

    def take_each(self, gfns: Words, to: int = SWAPPED) -> Flush:
        """Take pages that have a host frame of their own, int64[n] ascending, as `take` does.

        Those that have none any more, since they were chosen, stay where they are: they lie in a shared frame now.
        """
        swapped = self.swapped if to == SWAPPED else None
        found = np.empty(len(gfns), np.int64)
        gfns = found[: find_takeable(self.backing, self.host.pins, gfns, found)]
        if self.held:
            gfns = gfns[[self.held[gfn] <= 0 for gfn in gfns.tolist()]]
        if swapped and len(gfns):
            gfns = swapped.admit(gfns)
        if not len(gfns):
            return NO_FLUSH
        break_up_each(self.backing, gfns)
        flush = self.second.zap_each(gfns)
        pfns = np.empty(len(gfns), np.int64)
        take_backing(self.backing, self.host.frames, gfns, to, pfns)
        self.taken += len(gfns)
        if swapped:
            swapped.write(gfns, pfns)
            return flush
        self._clear(gfns, pfns, keep=to == SWAPPED)
        self.host.give(pfns)
        return flush

    def discard(self, first: int, count: int, to: int = 0) -> Flush:
        """Discard what `count` guest frames from `first` on hold, wherever that is (madvise, MADV_DONTNEED).

        Linux unmaps them, and frees their frames and their places in swap (mm/madvise.c, madvise_dontneed_single_vma).
        Pages that a device works on stay.

        Parameters
        ----------
        to : int
            What their words say from now on: 0 (never backed), or BALLOONED.

        Returns
        -------
        Flush
            As of `take`.
        """
        words = self.backing[first : first + count]
        flush = self.take(first, count, to) if words.any() else NO_FLUSH
        for gfn in (first + np.flatnonzero(words & SWAPPED)).tolist():
            self.contents.pop(gfn, None)
        words[words & (OWNED | SHARED) == 0] = to
        return flush

    def allow(self, first: int, count: int) -> None:
        """Let the guest use frames again that were in its balloon: each gets a page when it is next used."""
        words = self.backing[first : first + count]
        words[words == BALLOONED] = 0

    def move(self, gfn: int, pfn: int) -> Flush:
        """Move a page to the host frame `pfn`: contents, entries, reverse map.

        The two frames change hands: who had `pfn` has the old frame from now on, and may use it when the flush has been
        made. Linux: mm/migrate.c, `migrate_folio_unmap` and `_move`. All pages that lie in a shared frame move, and
        their VMs have forgotten the old one by then.
        """
        clean = self.clean(gfn)
        if not clean and (stable := shared_frame(self.backing, gfn)) is not None:
            self.host.move_shared(self.words, stable, pfn)
            return NO_FLUSH
        break_up(self.backing, gfn)
        flush = self.second.zap(gfn, 1)
        old, frames = self.frame_of(gfn), self.host.frames
        move_words(self.words, old, pfn)
        whose, state = int(frames["owner"][pfn]), State(int(frames["state"][pfn]))
        self.host.hand_over(np.array([pfn]), self.owner, State(int(frames["state"][old])))
        self.host.hand_over(np.array([old]), whose, state)
        frames["rmap"][old] = frames["rmap"][pfn] = 0
        set_backing(self.backing, self.host.frames, gfn, pfn, 0)
        if clean:
            clean_backing(self.backing, gfn, clean=True)
        return flush

    def share(self, gfn: int, pfn: int) -> Flush:
        """Have a page lie in a frame that others read too: in its own, which is then such a one, or in theirs.

        Linux: mm/ksm.c, `try_to_merge_one_page`, which splits a large page, takes the right to write from the entry
        (`write_protect_page`, of which KVM is told by its MMU notifier, and clears its own entries), compares, and has
        the entry lead to the other frame (`replace_page`). The next access maps it read-only. A pinned page stays.

        Parameters
        ----------
        gfn : int
            A guest frame that has a host frame of its own.
        pfn : int
            That frame, or one of `HostMemory.shared`.

        Returns
        -------
        Flush
            To be made before anybody uses the frame that the page lay in.

        Raises
        ------
        ValueError
            The guest frame has no frame of its own, `pfn` is not shared, or it is a page table and the words differ.
        """
        if self.swapped and self.clean(gfn):
            self.swapped.forget(gfn)
        own, shared = page_of(self.backing, gfn, 0), self.host.shared
        if own is None or (pfn not in shared and pfn != own[0]):
            raise ValueError(f"guest frame {gfn} cannot come to share frame {pfn}")
        if self.pinned(gfn):
            return NO_FLUSH
        old = own[0]
        if pfn != old and self.holds_table(gfn) and (self._page(old) != self._page(pfn)).any():
            raise ValueError(f"guest frame {gfn} does not hold what frame {pfn} does")
        break_up(self.backing, gfn)
        flush = self.second.zap(gfn, 1)
        if pfn == old:
            self.host.make_shared(pfn)
        else:
            self._page(old)[:] = 0
            self.host.frames["rmap"][old] = 0
            self.host.give(np.array([old]))
        share_backing(self.backing, gfn, pfn)
        shared.add(pfn, self, gfn)
        self.merged += 1
        return flush

    def unshare(self, vcpu: Vcpu, gfn: int, pfn: int) -> int:
        """Copy a shared page to the frame `pfn`, which is the VM's, because a vCPU is about to write to it.

        Linux: mm/memory.c, `wp_page_copy`: the old entry goes and the processors forget it before the new one comes.
        Returns the cycles until those of other vCPUs have.
        """
        stable = self.frame_of(gfn)
        flush = self.second.zap(gfn, 1)
        self._page(pfn)[:] = self._page(stable)
        use(self.host.frames, np.array([pfn]), int(State.GUEST))
        set_backing(self.backing, self.host.frames, gfn, pfn, 0)
        self._leave(gfn, stable)
        self.broken += 1
        return self.forget(flush, vcpu)

    def protect_shared(self) -> None:
        """Take the right to write from all that maps pages which are shared, or clean."""
        for gfn in places_of(self.backing, SHARED).tolist():
            self.second.protect(gfn, 1)

    def close(self) -> None:
        """Leave all shared frames: the VM is no more."""
        for gfn in self.shared().tolist():
            self._leave(gfn)
            self.backing[gfn] = 0
        if self.swapped:
            self.swapped.close()

    def leave_frame(self, number: int) -> Flush:
        """Clear what maps a shared page that is about to lie elsewhere."""
        return self.second.zap(number, 1)

    def enter_frame(self, numbers: list[int], old: int, new: int) -> None:
        """Note that shared pages lie in another frame."""
        for number in numbers:
            share_backing(self.backing, number, new)

    def forget_all(self, flush: Flush) -> None:
        """Have the processors forget what a flush says."""
        self.forget(flush, None)

    def _leave(self, gfn: int, stable: int | None = None) -> None:
        """Note that a page lies in its shared frame no more."""
        pfn = self.frame_of(gfn) if stable is None else stable
        if self.host.shared.remove(pfn, self, gfn):
            self._page(pfn)[:] = 0
            self.host.free_shared(pfn)

    def find(self, pfns: Words) -> Words:
        """Return which guest frames lie in some host frames, int64[n].

        -1 stands for what is no page of this memory, lies in a large page, or must stay where it is for a device.
        """
        records, found = self.host.frames[pfns], np.full(len(pfns), -1)
        mine = np.flatnonzero((records["owner"] == self.owner) & (records["rmap"] > 0))
        gfns = np.minimum(records["rmap"][mine], len(self.backing)) - 1  # of a table it is something else
        here = self.backing[gfns] ^ pfns[mine] << PAGE_SHIFT
        small = (here == SMALL_PAGE) | (here == CLEAN_PAGE) | (here == HINTED_PAGE)
        for at, gfn in zip(mine[small].tolist(), gfns[small].tolist(), strict=True):
            if not self.pinned(gfn):
                found[at] = gfn
        return found

    def _page(self, pfn: int) -> Words:
        return self.words[pfn << 9 : (pfn + 1) << 9]
