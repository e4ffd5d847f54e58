"""What a kernel does at a fault of an entry that is there: rights given, pages copied, the page of zeros replaced."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from vmsim.contracts import Steps, Vcpu
from vmsim.frames.records import NO_FRAME
from vmsim.guest.edits import Entry
from vmsim.guest.placing import Placing
from vmsim.guest.regions import FILE, SHARED
from vmsim.guest.spaces import Space
from vmsim.machine.formats import DIRTY, LARGE, PAGE_SHIFT, PRESENT, WRITE

__all__ = ["Granting", "Hints"]


class Hints(Protocol):
    """Who has taken entries' rights for the next access to be noticed, of a program on the host itself."""

    def hinted(self, pfn: int) -> bool:
        """Whether that was done to what maps a frame."""
        ...

    def hint_fault(self, vcpu: Vcpu, pfn: int) -> int:
        """Learn of the access, when the right is back; return the cycles of what the host does about it."""
        ...


class Granting(Placing):
    """What a kernel does with an entry that denied an access.

    Attributes
    ----------
    copies : int
        Pages copied.
    editing : int
        Who is at work on entries that they have read.
    """

    copies: int
    editing: int

    def _notice(self, vcpu: Vcpu, space: Space, gva: int, hints: Hints) -> Steps[bool]:
        """Give an entry back its right that was taken for the next access to be noticed; return whether it was.

        Linux: mm/memory.c, do_numa_page. The host may move the page then.
        """
        with (yield from self._entries(vcpu, space)):
            entry = yield from self.tables.find(vcpu, space.root, gva)
            if entry.level > 1 or not entry.value or entry.value & PRESENT:
                return False
            if not hints.hinted(entry.first):
                return False
            yield from self.tables.set(vcpu, entry.place, entry.value | PRESENT)
            vcpu.owe("guest_fault", hints.hint_fault(vcpu, entry.first))
        return True

    def _mend_there(self, vcpu: Vcpu, space: Space, gva: int, bits: int) -> Steps[None]:
        """Mend the entry that denied an access: replace its page if that is shared and was to be written."""
        self.editing += 1
        yield from self._permit(vcpu, space, gva, bits)
        self.editing -= 1

    def _permit(self, vcpu: Vcpu, space: Space, gva: int, bits: int) -> Steps[None]:
        page, order, large = NO_FRAME, 0, True
        while True:
            with (yield from self._entries(vcpu, space)):
                entry = yield from self._permit_now(vcpu, space, gva, bits, large=large)
                if page != NO_FRAME and (entry is None or self._order_of(entry) != order):
                    self.frames.give(np.array([page]), order)  # another CPU has been faster
                    page = NO_FRAME
                if entry is None:
                    return
                if page != NO_FRAME:
                    yield from self._copy(vcpu, space, gva, entry, page, bits)
                    return
            order = self._order_of(entry)
            page = yield from self.frames.allocate(vcpu, order)
            if page == NO_FRAME:  # the last large block went to another VM meanwhile
                large = False
                continue
            if self.zeros.holds(entry.first):
                vcpu.owe("guest_fault", self.costs.zero_page << order)
            else:
                vcpu.owe("guest_fault", self.costs.copy_page)
                self.copies += 1
            if self.mmu.traps:
                yield from self.mmu.clear(vcpu, page << PAGE_SHIFT, order, table=False)
            if len(self.current) == 1:  # else others may have changed the entry: it is found again (pte_same)
                yield from self._copy(vcpu, space, gva, entry, page, bits)
                return

    def _order_of(self, entry: Entry) -> int:
        return self.tables.width * (entry.level - 1)

    def _permit_now(self, vcpu: Vcpu, space: Space, gva: int, bits: int, *, large: bool) -> Steps[Entry | None]:
        """Mend an entry that needs no copy, its space's entries locked; return one whose page is to be replaced.

        With `large`, that may be the huge page of zeros (mm/huge_memory.c, do_huge_zero_wp_pmd, since Linux 6.13); any
        other large page is split, of which a small one is copied.
        """
        entry = yield from self.tables.find(vcpu, space.root, gva)
        if entry.value == 0:
            return None
        write = bits & DIRTY != 0
        alone = self.sharing.one_alone(entry.first, self._order_of(entry))
        order = self._order_of(entry)
        if order and large and write and entry.first == self.zeros.large and self.frames.has_block(order):
            return entry
        if write and entry.level > 1 and not alone:
            yield from self.tables.split(vcpu, space.root, gva, 1)
            entry = yield from self.tables.find(vcpu, space.root, gva)
            alone = self.sharing.one_alone(entry.first, 0)
        if write and not alone:
            return entry
        if write:
            kind = space.regions.at(gva) or 0
            if kind & (FILE | SHARED) == FILE and not entry.value & DIRTY:  # the page cache's
                vcpu.owe("guest_fault", self.costs.copy_page)
                self.copies += 1
            self.frames.frames["rmap"][entry.first] = entry.place
        yield from self.tables.set(vcpu, entry.place, entry.value | (bits if write else bits & ~WRITE))
        return None

    def _copy(self, vcpu: Vcpu, space: Space, gva: int, entry: Entry, page: int, bits: int) -> Steps[None]:
        """Give a space a page of its own in the place of a shared one (mm/memory.c, wp_page_copy)."""
        order = self._order_of(entry)
        size = 1 << (PAGE_SHIFT + order)
        space.unflushed = "pages"
        yield from self.tables.set(vcpu, entry.place, 0)
        first = gva & -size
        yield from self.cpus.invalidate(vcpu, space, first, first + size - 1, order)
        space.unflushed = ""
        if order:
            for block, each in self.sharing.drop(np.array([entry.first]), order):
                self.frames.give(block, each)
        elif self.sharing.leave(entry.first):
            self.frames.give(np.array([entry.first]), 0)
        self.frames.frames["rmap"][page] = entry.place
        yield from self.tables.set(vcpu, entry.place, page << PAGE_SHIFT | bits | (LARGE if order else 0))
