"""A guest kernel: processes, demand paging, copy-on-write, and the system calls that edit page tables.

It does to page tables what Linux does for private anonymous memory (mm/memory.c, mm/mmap.c, kernel/fork.c), so every
mapping is taken as one, whatever it was in the program that a trace is of. Tables live in guest memory and are edited
through the guest's `Mmu`. The kernel's own half of the address space is left out, but for a map of all memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Ledger
from vmsim.contracts import Frames, Mmu, Steps, Stop, Vcpu, VmStopped
from vmsim.frames.buddy import NO_FRAME
from vmsim.guest.calls import MemoryCalls
from vmsim.guest.demand import DEMAND
from vmsim.guest.direct_map import DirectMap
from vmsim.guest.edits import Entry, PageTables
from vmsim.guest.lists import TABLE_BITS
from vmsim.guest.process import Pcids, Process
from vmsim.guest.regions import WRITE as WRITABLE
from vmsim.guest.sharing import Sharing
from vmsim.guest.spaces import AddressSpaces, Ranges, Space
from vmsim.machine.formats import (
    ACCESSED,
    CODE_PRESENT,
    CODE_RESERVED,
    CODE_WRITE,
    DIRTY,
    LARGE_ORDERS,
    PAGE_SHIFT,
    PRESENT,
    USER,
    WRITE,
)
from vmsim.scenario.cpu import Cost
from vmsim.tables.edit import BLOCKED, missing_tables, populate

__all__ = ["INIT", "GuestKernel"]


INIT = 1  # the process that a VM starts with
NO_ROOT = -1
PAGE_BITS = PRESENT | WRITE | USER | ACCESSED
_READ_ONLY = PRESENT | USER | ACCESSED


class GuestKernel(MemoryCalls):
    """Page faults, system calls and context switches of one guest.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    mmu : Mmu
        How the kernel reaches its page tables and its processor.
    frames : Frames
        Where frames come from.
    levels : int
        Of the guest's page tables, 2 to 5.
    page_order : int
        Order of the pages the kernel maps with where it can (0, 9, 10, 18); smaller ones where it cannot.
    costs : Cost
        Cycles of the kernel's work.
    kernel_half : DirectMap, optional
        The kernel's map of all memory, where `mmu` is one.
    pcids : int, optional
        PCIDs that the kernel uses; 0: none, every context switch empties the TLB.
    ranges : Ranges, optional
        Who edits whole ranges, where the kernel keeps a second table of each address space.

    Attributes
    ----------
    faults, copies, strays : int
        Page faults; pages copied after a fork; faults for which the regions declared gave no right (a trace does not
        tell of everything that gives a program its rights), which are mended as if they had.
    processes : dict
        By pid.
    """

    def __init__(
        self,
        memory: NDArray[np.int64],
        mmu: Mmu,
        frames: Frames,
        *,
        levels: int,
        page_order: int,
        costs: Cost,
        kernel_half: DirectMap | None = None,
        pcids: int = 0,
        ranges: Ranges | None = None,
    ) -> None:
        self.memory = memory
        self.mmu = mmu
        self.frames = frames
        self.page_order = page_order
        self.costs = costs
        self.tables = PageTables(memory, mmu, frames, levels=levels, costs=costs, kernel_half=kernel_half)
        self.sharing = Sharing(frames.frames)
        self.spaces = AddressSpaces(self.tables, frames, self.sharing, costs, large=page_order > 0, ranges=ranges)
        self.processes: dict[int, Process] = {}
        self.current = Process(INIT, 0, Space(NO_ROOT))
        self.own_tables: list[int] = kernel_half.tables if kernel_half else []  # frames
        self.editing = 0  # who is at work on entries that they have read, which the host leaves alone meanwhile
        self.faults = 0
        self.copies = 0
        self.strays = 0
        self._pcids = Pcids(pcids)
        self._levels = levels
        self._fault_cycles = costs.fault_delivery + costs.guest_fault
        self.serves = page_order == 0 and mmu.known
        self._demand = np.zeros(1, DEMAND)
        self._demand["levels"] = levels
        self._demand["table"] = TABLE_BITS
        self._demand["owner"] = frames.owner
        self._demand["fault"] = self._fault_cycles + costs.zero_page
        self._demand["each_table"] = self.tables.table_cycles
        self._expected: tuple[int, ...] = ()

    @property
    def root(self) -> int:
        """The gpa of the root table of the process that runs; negative before the guest has booted."""
        return self.current.space.root

    def boot(self, vcpu: Vcpu) -> Steps[None]:
        """Make the first process; the tables below its root come with the faults."""
        space = Space((yield from self.tables.new_root(vcpu)))
        self.processes[INIT] = self.current = Process(INIT, 0, space)
        number, _ = self._pcids.take(space)
        self.spaces.loaded = space
        yield from self.mmu.load_root(vcpu, space.root, number, keep=True)  # nothing is cached yet

    def page_fault(self, vcpu: Vcpu, gva: int, code: int, *, delivered: bool = True) -> Steps[None]:
        """Handle a page fault with its error code: map a cleared page, or mend an entry that denied the access.

        `delivered` says that the processor has raised it; the kernel itself finds pages missing as well.

        Raises
        ------
        VmStopped
            The code says that an entry has a reserved bit, or the address is the kernel's own.
        """
        self.tables.expect_program(gva)
        if code & CODE_RESERVED:
            raise VmStopped(Stop.RESERVED_BIT, address=gva)
        self.faults += 1
        cycles = self._fault_cycles if delivered else self.costs.guest_fault
        if code & CODE_PRESENT:
            yield from self._handle(vcpu, gva, code, cycles)
        else:
            with vcpu.first():
                yield from self._handle(vcpu, gva, code, cycles)

    def _handle(self, vcpu: Vcpu, gva: int, code: int, cycles: int) -> Steps[None]:
        space = self.current.space
        vcpu.owe("guest_fault", cycles)
        write = code & CODE_WRITE != 0
        plain = PAGE_BITS | DIRTY if write else PAGE_BITS
        bits = self._bits(space, gva, write) if len(space.regions) else plain
        if not code & CODE_PRESENT:
            order = self._order_at(space, gva) if self.page_order else 0
            page = yield from self.frames.allocate(vcpu, order)
            while page == NO_FRAME:  # the last large block went to another VM meanwhile
                order = self._order_at(space, gva) if order > 9 else 0
                page = yield from self.frames.allocate(vcpu, order)
            vcpu.owe("guest_fault", self.costs.zero_page << order)
            if self.mmu.traps:
                yield from self.mmu.clear(vcpu, page << PAGE_SHIFT, order, table=False)
            where = space.root, gva, order // 9 + 1, page, bits
            if self.tables.map_at_once(*where) or (yield from self.tables.map(vcpu, *where)):
                return
            self.frames.give(np.array([page]), order)
        self.editing += 1
        yield from self._permit(vcpu, space, gva, bits)
        self.editing -= 1

    @property
    def served(self) -> tuple[NDArray[Any], ...]:
        """What compiled code needs to map pages as `page_fault` does in the plain case (engine/serve.py)."""
        return self._demand, self.frames.zone, self.frames.frames, self.frames.ready.words

    def expect(self, gva: int) -> None:
        """Tell compiled code what may be mapped at `gva` and around."""
        if not self.serves:
            return
        space = self.current.space
        start, end, rights = space.regions.around(gva)
        writable = rights is None or rights & WRITABLE != 0
        bits = PAGE_BITS if writable else _READ_ONLY if rights else 0
        expected = space.root, start, end, bits, int(writable)
        if expected != self._expected:
            self._expected = expected
            for name, value in zip(("root", "first", "last", "page", "writable"), expected, strict=True):
                self._demand[name] = value

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        ledger.counters("guest", lambda: {"faults": self.faults, "copies": self.copies, "strays": self.strays})

    def account(self, vcpu: Vcpu) -> None:
        """Account for the faults that compiled code has handled."""
        faults, tables = int(self._demand["faults"][0]), int(self._demand["tables"][0])
        self.faults += faults
        with vcpu.first():
            vcpu.owe("guest_fault", faults * int(self._demand["fault"][0]) + tables * self.tables.table_cycles)
        self._demand["faults"] = self._demand["tables"] = 0

    def populate(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> int:
        """Map regions of the first process before the clock starts, in the order given; guest memory must be backed.

        Returns
        -------
        int
            Large pages that there was no block for, in whose place there are small ones.

        Raises
        ------
        VmStopped
            The guest's memory does not suffice.
        """
        tables, page = np.empty(8, np.int64), np.empty(1, np.int64)
        wanting = 0
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
                    self.tables.backing,
                    start,
                    start + length,
                    TABLE_BITS,
                    PAGE_BITS | DIRTY,
                    tables,
                    page,
                )
                if reached == start + length:
                    break
                wanting += -((reached - start - length) >> (PAGE_SHIFT + order))
            else:
                raise VmStopped(Stop.OUT_OF_MEMORY)
        return wanting

    def fork(self, vcpu: Vcpu, pid: int, child: int) -> Steps[None]:
        """Fork: process `child` gets a copy of the address space, page by page when either writes."""
        if (process := self.processes.get(pid)) and child not in self.processes:
            vcpu.owe("guest_fault", self.costs.fork)
            self.processes[child] = Process(child, pid, (yield from self.spaces.copy(vcpu, process.space)))

    def share(self, vcpu: Vcpu, pid: int, child: int) -> Steps[None]:
        """Vfork: process `child` uses the address space itself, until it replaces it (exec) or exits.

        It costs what a fork does but for its copying of entries (kernel/fork.c, copy_mm: CLONE_VM).
        """
        if (process := self.processes.get(pid)) and child not in self.processes:
            vcpu.owe("guest_fault", self.costs.fork)
            process.space.users += 1
            self.processes[child] = Process(child, pid, process.space)
        return
        yield

    def execute(self, vcpu: Vcpu, pid: int) -> Steps[None]:
        """Execve: an empty address space in the place of the process's own."""
        if process := self.processes.get(pid):
            vcpu.owe("guest_fault", self.costs.exec)
            old, process.space = process.space, Space((yield from self.tables.new_root(vcpu)))
            if process is self.current:
                yield from self._load(vcpu, process.space)
            old.users -= 1
            if not old.users:
                yield from self.spaces.destroy(vcpu, old)
                yield from self.spaces.release(vcpu, old, self._pcids.drop(old))

    def exit(self, vcpu: Vcpu, pid: int) -> Steps[None]:
        """Exit: free all that a process has; its parent runs next, or the process of the lowest number.

        The last process leaves nothing to run: what it has goes when the VM does.
        """
        if pid not in self.processes or len(self.processes) == 1:
            return
        process = self.processes.pop(pid)
        vcpu.owe("guest_fault", self.costs.exit)
        process.space.users -= 1
        alone = process.space.users == 0
        if alone:
            yield from self.spaces.destroy(vcpu, process.space)
        if process is self.current:  # the dying process frees its memory itself, and leaves CR3 last
            yield from self.switch(vcpu, process.parent if process.parent in self.processes else min(self.processes))
        if alone:
            yield from self.spaces.release(vcpu, process.space, self._pcids.drop(process.space))

    def switch(self, vcpu: Vcpu, pid: int) -> Steps[None]:
        """Run another process; one that nobody has heard of starts with an empty address space."""
        if pid == self.current.pid and pid in self.processes:
            return
        if pid not in self.processes:
            self.processes[pid] = Process(pid, 0, Space((yield from self.tables.new_root(vcpu))))
        vcpu.owe("guest_fault", self.costs.process_switch)
        before, self.current = self.current, self.processes[pid]
        if self.current.space is not before.space:  # else CR3 stays (arch/x86/mm/tlb.c, switch_mm_irqs_off)
            yield from self._load(vcpu, self.current.space)

    def buffer(self, vcpu: Vcpu, pid: int, address: int, length: int) -> Steps[NDArray[np.int64]]:
        """Return the guest frames of a buffer as far as it is mapped, as the guest's driver tells its device.

        All of them are backed by then: the host brings back what it has taken.
        """
        root = self.processes[pid].space.root
        while True:
            gfns = yield from self.tables.frames_of(vcpu, root, address, length)
            if not (yield from self.frames.ensure(vcpu, gfns)):
                return gfns

    def _load(self, vcpu: Vcpu, space: Space) -> Steps[None]:
        number, keep = self._pcids.take(space)
        self.spaces.loaded = space
        yield from self.mmu.load_root(vcpu, space.root, number, keep=keep)

    def _bits(self, space: Space, gva: int, write: bool) -> int:
        """Return the bits of an entry that lets a page be read, or written, and what else its region allows."""
        rights = space.regions.at(gva)
        allowed = rights is None or rights & WRITABLE != 0
        if not (allowed if write else rights is None or rights):
            self.strays += 1
        return (PAGE_BITS if allowed or write else _READ_ONLY) | (DIRTY if write else 0)

    def _permit(self, vcpu: Vcpu, space: Space, gva: int, bits: int) -> Steps[None]:
        """Mend the entry that denied an access: copy the page if it is shared and was to be written."""
        entry = yield from self.tables.find(vcpu, space.root, gva)
        if entry.value == 0:
            return
        write = bits & DIRTY != 0
        alone = self.sharing.one_alone(entry.first, self.tables.width * (entry.level - 1))
        if write and entry.level > 1 and not alone:
            yield from self.tables.split(vcpu, space.root, gva, 1)
            entry = yield from self.tables.find(vcpu, space.root, gva)
            alone = self.sharing.one_alone(entry.first, 0)
        if write and not alone:
            yield from self._copy(vcpu, gva, entry, bits)
            return
        if write:
            self.frames.frames["rmap"][entry.first] = entry.place
        yield from self.tables.set(vcpu, entry.place, entry.value | (bits if write else bits & ~WRITE))

    def _copy(self, vcpu: Vcpu, gva: int, entry: Entry, bits: int) -> Steps[None]:
        """Give a space a page of its own in the place of a shared one (mm/memory.c, wp_page_copy)."""
        page = yield from self.frames.allocate(vcpu, 0)
        vcpu.owe("guest_fault", self.costs.copy_page)
        self.copies += 1
        if self.mmu.traps:
            yield from self.mmu.clear(vcpu, page << PAGE_SHIFT, 0, table=False)
        yield from self.tables.set(vcpu, entry.place, 0)
        first = gva & -(1 << PAGE_SHIFT)
        yield from self.mmu.invalidate(vcpu, first, first + (1 << PAGE_SHIFT) - 1)
        self.sharing.leave(entry.first)
        self.frames.frames["rmap"][page] = entry.place
        yield from self.tables.set(vcpu, entry.place, page << PAGE_SHIFT | bits)

    def _order_at(self, space: Space, gva: int) -> int:
        """Return the order of the page to map at `gva`: the largest that there is a block and room for."""
        for order in LARGE_ORDERS[self.page_order]:
            missing = missing_tables(self.memory, space.root, self._levels, order // 9 + 1, self.tables.backing, gva)
            size = 1 << (PAGE_SHIFT + order)
            start = gva & -size
            fits = missing != BLOCKED and space.regions.alike(start, start + size)
            if fits and self.frames.has_block(order):  # asked last: a host notes what it could not give
                return order
        return 0
