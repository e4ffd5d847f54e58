"""khugepaged of a guest's kernel: puts small pages of its programs into large ones (Linux 6.12, mm/khugepaged.c).

It goes round the address spaces, range by range of a large page, and looks at `pages_to_scan` entries before it sleeps.
A range is collapsed that one region covers, of which few enough entries are empty, swapped out or shared, one at least
may be written and one was accessed, and on which no device works (`hpage_collapse_scan_pmd`). Then a block is
allocated, what is swapped out comes back, the entry of the page table is cleared and flushed, all is copied, the
entries of the table go one by one, and a large entry takes its place (`collapse_huge_page`). The table is freed; Linux
keeps it with the large page, for when that is split. Ranges in which nothing is mapped take no time here.

Like kswapd it is a thread that runs on the first CPU that has not ended. Locks that are not free it does not wait for,
and comes by in its next round. Nobody has measured the steps: to look at an entry is counted as in search of dirty
flags, the block as a fault that allocates one, each page as one that is copied and one that is unmapped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import numpy as np

from vmsim.contracts import Steps, Vcpu, VmStopped, Words
from vmsim.frames.records import NO_FRAME
from vmsim.guest.demand import PAGE_BITS
from vmsim.guest.huge import HugePages
from vmsim.guest.kernel import GuestKernel
from vmsim.guest.lists import Entries
from vmsim.guest.locks import Held
from vmsim.guest.spaces import Space
from vmsim.machine.formats import ACCESSED, DIRTY, LARGE, PAGE_SHIFT, PRESENT, WRITE
from vmsim.scenario.cpu import Cost
from vmsim.scenario.thp import Khugepaged

__all__ = ["KHUGEPAGED", "GuestKhugepaged"]

KHUGEPAGED: Final = "khugepaged"  # the cause of the time that CPUs use for it

_COUNTED = ("full_scans", "pages_scanned", "pages_collapsed", "alloc_failed", "exceed_none_pte", "exceed_swap_pte")
_AND = ("exceed_shared_pte", "page_ro", "lack_referenced", "pinned", "locked", "swapin")


class GuestKhugepaged:
    """The khugepaged of one kernel.

    Parameters
    ----------
    told : Khugepaged
        What it is told.
    costs : Cost
        What its steps take.
    kernel : GuestKernel
        Whose.
    pinned : callable
        Whether a device works on a frame.

    Attributes
    ----------
    held : int
        Frames of the block that is about to become a large page.
    counts : Counter
        `full_scans`; entries looked at (`pages_scanned`), large pages made (`pages_collapsed`), those for which no
        block was to be had (`alloc_failed`); ranges left alone for entries of some kind that were too many
        (`exceed_none_pte`, `exceed_swap_pte`, `exceed_shared_pte`), for want of one that may be written (`page_ro`) or
        was accessed (`lack_referenced`), because a device worked on one (`pinned`), or because the address space was
        locked (`locked`); pages brought back (`swapin`).
    """

    def __init__(self, told: Khugepaged, costs: Cost, *, kernel: GuestKernel, pinned: Callable[[int], bool]) -> None:
        assert kernel.huge
        self.told = told
        self.costs = costs
        self.kernel = kernel
        self.huge: HugePages = kernel.huge
        self.pinned = pinned
        self.held = 0
        self.counts: Counter[str] = Counter(dict.fromkeys(_COUNTED + _AND, 0))
        self._order = kernel.tables.width
        self._entries = 1 << self._order
        self._size = self._entries << PAGE_SHIFT
        self._at = 0, 0  # the process and the address to look at next

    def batch(self, vcpu: Vcpu) -> Steps[bool]:
        """Look at the next ranges; return whether a block was wanted, and none was to be had."""
        vcpu.owe(KHUGEPAGED, self.costs.context_switch)
        budget = self.told.pages
        while budget > 0 and (space := self._turn()):
            pid, address = self._at
            tables = self.kernel.tables
            stop, seen = yield from tables.find_pages(vcpu, space.root, address, tables.end)
            starts, which = np.unique(seen.starts & -self._size, return_index=True)
            for start, level in zip(starts.tolist(), seen.levels[which].tolist(), strict=True):
                if budget <= 0:
                    break
                budget -= self._entries
                self._at = pid, start + self._size
                self.counts["pages_scanned"] += self._entries
                if level == 1 and self._alive(space) and not (yield from self._look(vcpu, space, start)):
                    return True
            else:
                self._at = pid, stop
        yield vcpu.settle()
        return False

    def _turn(self) -> Space | None:
        """Return the space whose turn it is; None: all have been gone through, and the next round begins."""
        known = set[Space]()
        for pid, process in sorted(self.kernel.processes.items()):
            if pid < self._at[0] or process.space in known:
                known.add(process.space)
                continue
            if pid > self._at[0]:
                self._at = pid, 0
            if self._at[1] < self.kernel.tables.end:
                return process.space
            known.add(process.space)
        self._at = 0, 0
        self.counts["full_scans"] += 1
        return None

    def _alive(self, space: Space) -> bool:
        return any(process.space is space for process in self.kernel.processes.values())

    def _look(self, vcpu: Vcpu, space: Space, start: int) -> Steps[bool]:
        """Look at a range, and collapse it if that is to be; return False if there was no block for it."""
        kernel, told = self.kernel, self.told
        if not space.lock.take(write=False):
            self.counts["locked"] += 1
            return True
        with space.lock:
            seen = yield from self._scan(vcpu, space, start)
        vcpu.owe(KHUGEPAGED, self._entries * self.costs.log_scan)
        if not self._wanted(space, start, seen):
            return True
        page = yield from kernel.frames.try_block(vcpu, self._order, insists=told.defrag)
        compacts = kernel.compaction if page == NO_FRAME and told.defrag else None
        if compacts and (yield from compacts.compact(vcpu, self._order)):
            page = yield from kernel.frames.try_block(vcpu, self._order, insists=False)
        if page == NO_FRAME:
            self.counts["alloc_failed"] += 1
            self.huge.counts["thp_collapse_alloc_failed"] += 1
            return False
        self.held = self._entries
        kernel.editing += 1
        collapsed = (yield from self._bring_back(vcpu, space, start)) and (
            yield from self._collapse(vcpu, space, start, page)
        )
        kernel.editing -= 1
        self.held = 0
        if not collapsed:
            kernel.frames.give(np.array([page]), self._order)
        return True

    def _scan(self, vcpu: Vcpu, space: Space, start: int) -> Steps[Entries]:
        """Load the entries of a range; return those that map pages."""
        limit = start + self._size
        return (yield from self.kernel.tables.scan(vcpu, space.root, start, start, limit, every=True))[1]

    def _away(self, space: Space, start: int) -> list[int]:
        """Return which pages of a range are swapped out, by number."""
        if not space.away:
            return []
        first = start >> PAGE_SHIFT
        return [number for number in range(first, first + self._entries) if number in space.away]

    def _wanted(self, space: Space, start: int, seen: Entries) -> bool:
        """Whether a range is to be collapsed; count why not."""
        kernel, told, counts = self.kernel, self.told, self.counts
        if not len(seen.starts) or (seen.levels > 1).any():
            return False
        if not self.huge.allowed(space.regions.at(start) or 0) or not space.regions.alike(start, start + self._size):
            return False
        gfns = seen.firsts
        data = gfns != kernel.zeros.small
        away = len(self._away(space, start))
        more = (kernel.sharing.entries(gfns) > 1) | (kernel.frames.frames["owner"][gfns] < 0)
        for kind, found, most in (
            ("exceed_none_pte", self._entries - away - int(data.sum()), told.none),
            ("exceed_swap_pte", away, told.swap),
            ("exceed_shared_pte", int((more & data).sum()), told.shared),
        ):
            if found > most:
                counts[kind] += 1
                return False
        referenced = int((seen.values & ACCESSED != 0).sum())
        why = ""
        if any(map(self.pinned, gfns.tolist())):
            why = "pinned"
        elif not (seen.values & WRITE).any() or not (seen.values & PRESENT).all():
            why = "page_ro"
        elif not referenced or (away and referenced < self._entries // 2):
            why = "lack_referenced"
        if why:
            counts[why] += 1
        return not why

    def _bring_back(self, vcpu: Vcpu, space: Space, start: int) -> Steps[bool]:
        """Bring pages of a range back from the swap device; return whether all are there."""
        while self._alive(space) and (away := self._away(space, start)):
            if self.kernel.frames.short or not space.lock.take(write=False):
                return False
            with space.lock:
                try:
                    yield from self.kernel.swap_in(vcpu, space, away[0] << PAGE_SHIFT, PAGE_BITS, write=False)
                except VmStopped:  # it cannot be read: that is for its program to find out
                    return False
            self.counts["swapin"] += 1
        return True

    def _collapse(self, vcpu: Vcpu, space: Space, start: int, page: int) -> Steps[bool]:
        """Put a range into the block at `page`; return whether it still could be."""
        kernel, costs = self.kernel, self.costs
        mmu, frames, records = kernel.mmu, kernel.frames, kernel.frames.frames
        held = self._lock(space)
        if held is None:
            self.counts["locked"] += 1
            return False
        with held:
            seen = yield from self._scan(vcpu, space, start)
            if self._away(space, start) or not self._wanted(space, start, seen):
                return False
            if mmu.traps:
                yield from mmu.clear(vcpu, page << PAGE_SHIFT, self._order, table=False)
            table = int(seen.places[0]) >> PAGE_SHIFT
            place = np.array([records["rmap"][table]], np.int64)
            space.unflushed = "pages"
            yield from mmu.write(vcpu, place, np.zeros(1, np.int64))
            yield from kernel.cpus.flush(vcpu, space)
            space.unflushed = ""
            gfns = seen.firsts
            yield from frames.ensure(vcpu, np.append(gfns, np.arange(page, page + self._entries)))
            copied = int((gfns != kernel.zeros.small).sum())
            vcpu.owe(KHUGEPAGED, costs.guest_fault + copied * (costs.copy_page + costs.unmap_page) + costs.table_page)
            vcpu.owe(KHUGEPAGED, (self._entries - copied) * costs.zero_page)
            yield from mmu.write(vcpu, seen.places, np.zeros(len(gfns), np.int64))
            self._free(gfns)
            records["rmap"][page] = place[0]
            yield from mmu.write(vcpu, place, np.array([page << PAGE_SHIFT | PAGE_BITS | DIRTY | LARGE]))
            frames.give_tables(np.array([table]))
        self.counts["pages_collapsed"] += 1
        self.huge.counts["thp_collapse_alloc"] += 1
        return True

    def _lock(self, space: Space) -> Held[Space] | None:
        """Lock a space that there still is, if that can be done at once (mmap_lock, and the page tables')."""
        if not self._alive(space) or not space.lock.take(write=True):
            return None
        if not space.entries.take(write=True):
            space.lock.release()
            return None
        return Held(space, space.entries, space.lock)

    def _free(self, gfns: Words) -> None:
        """Free the pages that were copied, and that nobody else maps."""
        self.kernel.frames.frames["rmap"][gfns] = 0
        for pages, order in self.kernel.sharing.drop(gfns, 0):
            self.kernel.frames.give(pages, order)
