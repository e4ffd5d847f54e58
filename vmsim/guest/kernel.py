"""A simple guest kernel: one process, demand-zero paging, munmap.

A page fault allocates a frame, clears it, makes the tables that are missing and maps it, writable, accessed and (on a
write) dirty, as Linux does for anonymous memory (mm/memory.c, do_anonymous_page). Tables live in guest memory: the
kernel reaches them by their gpa, so a table's frame must be backed before it can be written.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.guest.frames import GuestMemoryError, Vcpu
from vmsim.machine.buddy import NO_FRAME
from vmsim.machine.flush import flush_asid, invalidate
from vmsim.machine.formats import ACCESSED, DIRTY, PAGE_SHIFT, PRESENT, USER, WRITE
from vmsim.machine.memory import clear_frame
from vmsim.machine.tables import BLOCKED, host_address, map_page, map_pages, missing_tables, populate, unmap_pages
from vmsim.scenario.cpu import Cost

__all__ = ["Frames", "GuestKernel"]

TABLE_BITS = PRESENT | WRITE | USER | ACCESSED
PAGE_BITS = PRESENT | WRITE | USER | ACCESSED

NO_ROOT = -1
_FLUSH_CEILING = 33  # pages above which Linux flushes the whole TLB instead (arch/x86/mm/tlb.c)


class Frames(Protocol):
    """The frames a kernel allocates from: the guest's own, or the host's where there is no guest."""

    zone: NDArray[Any]
    frames: NDArray[Any]
    owner: int

    def allocate(self, vcpu: Vcpu, order: int) -> Generator[simpy.Event, Any, int]:
        """Return the first of 2**order frames, ready to be written, or NO_FRAME if there is no such large block."""
        ...

    def allocate_table(self, vcpu: Vcpu) -> Generator[simpy.Event, Any, int]:
        """Return a frame for a page table, ready to be written."""
        ...

    def has_block(self, order: int) -> bool:
        """Whether 2**order frames could be had."""
        ...

    def give(self, gfns: NDArray[np.int64], order: int) -> None:
        """Take back blocks of 2**order frames."""


class GuestKernel:
    """Page tables of one address space and the faults that build them.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    registers : record[1]
        The VM's register file; its cr3 is set here.
    frames : Frames
        Where frames come from.
    page_order : int
        Order of the pages the kernel maps with where it can (0, 9, 18); smaller ones where it cannot.
    costs : Cost
        Cycles of the kernel's work.
    """

    def __init__(
        self,
        memory: NDArray[np.int64],
        cores: NDArray[Any],
        registers: NDArray[Any],
        frames: Frames,
        *,
        page_order: int,
        costs: Cost,
    ) -> None:
        self.memory = memory
        self.cores = cores
        self.frames = frames
        self.page_order = page_order
        self.costs = costs
        self.faults = 0
        self.root = NO_ROOT
        self._registers = registers
        self._asid = int(registers["asid"][0])
        self._levels = int(registers["levels"][0])
        self._nested = 0, 0
        self._fault_cycles = costs.fault_delivery + costs.guest_fault

    def boot(self, vcpu: Vcpu) -> Generator[simpy.Event, Any, None]:
        """Make the root table; the tables below it come with the faults."""
        self._nested = int(self._registers["nested_root"][0]), int(self._registers["nested_levels"][0])
        gfn = yield from self.frames.allocate_table(vcpu)
        self.root = gfn << PAGE_SHIFT
        clear_frame(self.memory, host_address(self.memory, *self._nested, self.root))
        self._registers["cr3"] = self.root

    def page_fault(self, vcpu: Vcpu, gva: int, write: bool) -> Generator[simpy.Event, Any, None]:
        """Handle a page fault: map a cleared page at `gva` (demand-zero paging)."""
        self.faults += 1
        order = self._order_at(gva) if self.page_order else 0
        vcpu.owe("guest_fault", self._fault_cycles)
        page = yield from self.frames.allocate(vcpu, order)
        while page == NO_FRAME:  # the last large block went to another VM meanwhile
            order = self._order_at(gva) if order > 9 else 0
            page = yield from self.frames.allocate(vcpu, order)
        vcpu.owe("guest_fault", self.costs.zero_page << order)
        place = self.root, self._levels, order // 9 + 1, *self._nested, gva & ~((1 << (PAGE_SHIFT + order)) - 1)
        bits = PAGE_BITS | DIRTY if write else PAGE_BITS
        missing = map_page(self.memory, self.frames.frames, *place, page, bits)
        if missing == 0:
            return
        if missing < 0:  # somebody mapped it meanwhile
            self.frames.give(np.array([page]), order)
            return
        tables = np.empty(missing, np.int64)
        for number in range(missing):
            tables[number] = yield from self.frames.allocate_table(vcpu)
            vcpu.owe("guest_fault", self.costs.table_page + self.costs.zero_page)
        map_pages(self.memory, self.frames.frames, *place, np.array([page]), tables, TABLE_BITS, bits)

    def populate(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Map regions before the clock starts, in the order given; guest memory must be backed already.

        Raises
        ------
        GuestMemoryError
            The guest's memory does not suffice.
        """
        tables, page = np.empty(8, np.int64), np.empty(1, np.int64)
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            for order in (self.page_order, 0):  # what no large page can be had for is mapped with small ones
                reached = populate(
                    self.memory,
                    self.frames.zone,
                    self.frames.frames,
                    self.frames.owner,
                    self.root,
                    self._levels,
                    order // 9 + 1,
                    *self._nested,
                    start,
                    start + length,
                    TABLE_BITS,
                    PAGE_BITS | DIRTY,
                    tables,
                    page,
                )
                if reached == start + length:
                    break
            else:
                raise GuestMemoryError

    def unmap(self, vcpu: Vcpu, address: int, length: int) -> None:
        """Unmap a range and free its pages: munmap, or a heap that shrinks."""
        limit = address + length
        gone, orders = np.empty(512, np.int64), np.empty(512, np.int64)
        total = 0
        while address < limit:
            address, count = unmap_pages(
                self.memory, self.root, self._levels, *self._nested, address, limit, gone, orders
            )
            total += count
            for order in (0, 9, 18):
                self.frames.give(gone[:count][orders[:count] == order], order)
        if not total:
            return
        if length >> PAGE_SHIFT > _FLUSH_CEILING:  # by the range, as Linux does
            flush_asid(self.cores, self._asid)
        else:
            invalidate(self.cores, self._asid, limit - length, limit - 1)
        vcpu.owe("guest_fault", self.costs.table_page * total)

    def _order_at(self, gva: int) -> int:
        """Return the order of the page to map at `gva`: the largest that there is a block and room for."""
        for order in (self.page_order, 9):
            if order <= self.page_order and self.frames.has_block(order):
                missing = missing_tables(self.memory, self.root, self._levels, order // 9 + 1, *self._nested, gva)
                if missing != BLOCKED:
                    return order
        return 0
