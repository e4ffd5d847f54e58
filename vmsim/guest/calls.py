"""System calls that change what an address space maps: mmap, munmap, mprotect, brk, mremap, madvise, mlock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager

from vmsim.contracts import Steps, Vcpu
from vmsim.guest.edits import Entry, PageTables
from vmsim.guest.huge import HugePages
from vmsim.guest.process import Process
from vmsim.guest.region_rows import HUGE, NOT_FORKED, NOT_HUGE, RIGHTS_OF, WIPED, of_mapping
from vmsim.guest.regions import KINDS, READ
from vmsim.guest.regions import WRITE as WRITABLE
from vmsim.guest.sharing import Sharing
from vmsim.guest.spaces import AddressSpaces, Space
from vmsim.machine.formats import CODE_PRESENT, CODE_WRITE, PAGE_SHIFT, PRESENT, WRITE

__all__ = ["MemoryCalls"]

_ADVICE = {  # by number: what of a region's kind is set, and what is not any more
    10: (NOT_FORKED, 0),
    11: (0, NOT_FORKED),
    14: (HUGE, NOT_HUGE),
    15: (NOT_HUGE, HUGE),
    18: (WIPED, 0),
    19: (0, WIPED),
}


class MemoryCalls(ABC):
    """What a kernel does when a process asks for memory, gives it back or moves it.

    Attributes
    ----------
    processes : dict
        By pid.
    current : list of Process
        The one that runs, by CPU.
    huge : HugePages or None
        The huge pages that it makes by itself; None: it makes none.
    """

    tables: PageTables
    sharing: Sharing
    spaces: AddressSpaces
    processes: dict[int, Process]
    current: list[Process]
    huge: HugePages | None

    @abstractmethod
    def root_of(self, cpu: int) -> int:
        """Return the root of the tables of the process that a CPU runs."""

    @abstractmethod
    def _changing(self, vcpu: Vcpu, pid: int, *, entries: bool = False) -> Steps[AbstractContextManager[Space | None]]:
        """Return the address space of a process, locked to be changed; with `entries`, its entries but not its regions.

        None: there is no such process.
        """

    @abstractmethod
    def page_fault(self, vcpu: Vcpu, gva: int, code: int, *, delivered: bool = True) -> Steps[None]:
        """Handle a page fault."""

    def map(self, vcpu: Vcpu, pid: int, address: int, length: int, rights: int) -> Steps[None]:
        """Mmap: declare a region; what was mapped there is gone, what is touched there will be mapped."""
        with (yield from self._changing(vcpu, pid)) as space:
            if space:
                yield from self.spaces.unmap(vcpu, space, address, address + length)
                space.regions.declare(address, address + length, int(of_mapping(rights, address)))

    def unmap(self, vcpu: Vcpu, pid: int, address: int, length: int) -> Steps[None]:
        """Munmap: unmap a range and free its pages."""
        with (yield from self._changing(vcpu, pid)) as space:
            if space:
                yield from self._remove(vcpu, space, address, length)

    def protect(self, vcpu: Vcpu, pid: int, address: int, length: int, rights: int) -> Steps[None]:
        """Mprotect: change the protection of a range, mapped or not; of what kind its mappings are stays."""
        with (yield from self._changing(vcpu, pid)) as space:
            if space:
                before = space.regions.within(address, address + length)
                space.regions.declare(address, address + length, rights)
                for first, last, old in before:
                    if old & ~RIGHTS_OF:
                        space.regions.declare(first, last, rights | old & ~RIGHTS_OF)
                yield from self.spaces.protect(vcpu, space, address, address + length, rights)

    def set_break(self, vcpu: Vcpu, pid: int, end: int) -> Steps[None]:
        """Brk: move the end of the heap; the first time it says only where the heap begins."""
        with (yield from self._changing(vcpu, pid)) as space:
            if space:
                new = _whole(end)
                before, space.regions.heap = space.regions.heap or new, new
                if new < before:
                    yield from self._remove(vcpu, space, new, before - new)
                space.regions.declare(before, new, READ | WRITABLE)

    def move(self, vcpu: Vcpu, pid: int, address: int, length: int, to: int) -> Steps[None]:
        """Mremap: move a range with its pages, of which none is faulted in again; what was at `to` is unmapped.

        A move to a place that overlaps is refused, as by Linux (EINVAL).
        """
        if abs(to - address) < length:
            return
        with (yield from self._changing(vcpu, pid)) as space:
            if space:
                yield from self.spaces.unmap(vcpu, space, to, to + length)
                yield from self.spaces.move(vcpu, space, address, address + length, to)
                space.regions.move(address, address + length, to)

    def discard(self, vcpu: Vcpu, pid: int, address: int, length: int, lazily: bool) -> Steps[None]:
        """Madvise: free the pages of a range that stays mapped (MADV_DONTNEED), or when memory is short (MADV_FREE).

        Linux reads the mmap_lock for it, and takes that of each page table in turn: here the space's entries at once.
        """
        with (yield from self._changing(vcpu, pid, entries=True)) as space:
            if space:
                drop = self.spaces.release_lazily if lazily else self.spaces.unmap
                yield from drop(vcpu, space, address, address + length)

    def advise(self, vcpu: Vcpu, pid: int, address: int, length: int, advice: int) -> Steps[None]:
        """Madvise: say what a fork does with a range (10 DONTFORK, 11 DOFORK, 18 WIPEONFORK, 19 KEEPONFORK).

        Or whether it is to have huge pages (14 HUGEPAGE, 15 NOHUGEPAGE), where the kernel makes any. Only private
        memory of no file can be wiped (mm/madvise.c, madvise_vma_behavior: EINVAL).
        """
        set_, unset = _ADVICE.get(advice, (0, 0))
        if self.huge is None and (set_ | unset) & (HUGE | NOT_HUGE):
            return
        with (yield from self._changing(vcpu, pid)) as space:
            parts = space.regions.within(address, address + length) if space and set_ | unset else []
            for first, last, rights in parts:
                if space and not (set_ == WIPED and rights & KINDS):
                    space.regions.declare(first, last, rights & ~unset | set_)

    def fault_in(self, vcpu: Vcpu, pid: int, address: int, length: int) -> Steps[None]:
        """Map the pages that the regions of a range lack (MAP_POPULATE, mlock), for writing where that is allowed.

        They are faults, but none that the processor raises (mm/gup.c, populate_vma_page_range). Only the process that
        runs can ask for it.
        """
        process = self.current[vcpu.number]
        if pid != process.pid:
            return
        for first, last, rights in process.space.regions.within(address, address + length):
            if rights & RIGHTS_OF:
                code = CODE_WRITE if rights & WRITABLE and rights & KINDS != KINDS else 0
                yield from self._fault_in(vcpu, first, last, code, delivered=False)

    def bring_in(self, vcpu: Vcpu, pid: int, address: int, length: int) -> Steps[None]:
        """Map what is not mapped of a buffer, for a device to write to, as if the process that runs had touched it."""
        if pid == self.current[vcpu.number].pid:
            first = address & -(1 << PAGE_SHIFT)
            yield from self._fault_in(vcpu, first, address + length, CODE_WRITE, delivered=True)

    def _remove(self, vcpu: Vcpu, space: Space, address: int, length: int) -> Steps[None]:
        yield from self.spaces.unmap(vcpu, space, address, address + length)
        space.regions.remove(address, address + length)

    def _breaks(self, vcpu: Vcpu, gva: int, entry: Entry) -> bool:
        """Whether a page that is there is replaced before somebody writes to it: a shared one, or that of zeros."""
        rights = self.current[vcpu.number].space.regions.at(gva)
        may_be = rights is None or rights & WRITABLE != 0
        return (may_be and entry.value & (PRESENT | WRITE) == PRESENT) or self.sharing.foreign(entry.first)

    def _fault_in(self, vcpu: Vcpu, first: int, limit: int, code: int, *, delivered: bool) -> Steps[None]:
        while first < limit:
            entry = yield from self.tables.find(vcpu, self.root_of(vcpu.number), first)
            if entry.value == 0:
                yield from self.page_fault(vcpu, first, code, delivered=delivered)
            elif code & CODE_WRITE and self._breaks(vcpu, first, entry):
                yield from self.page_fault(vcpu, first, code | CODE_PRESENT, delivered=delivered)
            size = self.tables.span(entry.level if entry.value else 1)
            first = first // size * size + size
            if first < limit and vcpu.left <= 0:
                yield vcpu.settle()


def _whole(address: int) -> int:
    """Return an address rounded up to whole pages."""
    return -(-address >> PAGE_SHIFT) << PAGE_SHIFT
