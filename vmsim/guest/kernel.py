"""A guest kernel: processes, demand paging, copy-on-write, and the system calls that edit page tables.

It does to page tables what Linux does (mm/memory.c, mm/mmap.c, kernel/fork.c) for private anonymous memory, and for
shared mappings and those of files as far as one process sees them. Tables live in guest memory and are edited through
the guest's `Mmu`. The kernel's own half of the address space is left out, but for a map of all memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Ledger
from vmsim.contracts import Frames, Mmu, Steps, Stop, Vcpu, VmStopped
from vmsim.contracts.commit import ROOM, Collected
from vmsim.contracts.faults import FaultKind, FaultTimes
from vmsim.frames.records import NO_FRAME
from vmsim.guest.commit import Guest
from vmsim.guest.demand import DEMAND, PAGE_BITS, READ_ONLY
from vmsim.guest.direct_map import DirectMap
from vmsim.guest.edits import PageTables
from vmsim.guest.flushes import Cpus
from vmsim.guest.granting import Granting, Hints
from vmsim.guest.huge import HugePages
from vmsim.guest.lists import TABLE_BITS
from vmsim.guest.operations import COLUMNS
from vmsim.guest.page_cache import PageCache
from vmsim.guest.process import Process
from vmsim.guest.region_rows import RIGHTS_OF
from vmsim.guest.regions import FILE, KINDS, SHARED
from vmsim.guest.regions import WRITE as WRITABLE
from vmsim.guest.sharing import Sharing
from vmsim.guest.spaces import AddressSpaces, Ranges, Space
from vmsim.guest.zeros import ZeroPages
from vmsim.machine.formats import CODE_PRESENT, CODE_RESERVED, CODE_WRITE, DIRTY, PAGE_SHIFT
from vmsim.scenario.cpu import Cost
from vmsim.scenario.thp import ThpSpec
from vmsim.tables.edit import populate

__all__ = ["INIT", "GuestKernel"]


INIT = 1  # the process that a VM starts with
NO_ROOT = -1
_EXPECTED = ("root", "pid", "open", "operates", "first", "last")


class GuestKernel(Granting):
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
        PCIDs that the kernel uses on each CPU; 0: none, every context switch empties the TLB.
    cpus : int, optional
        CPUs of the guest.
    ranges : Ranges, optional
        Who edits whole ranges, where the kernel keeps a second table of each address space.
    zero_page : bool, optional
        Whether reads of anonymous memory that nothing was written to map the page of zeros. If not, the first access
        to a page stands for the write by which its program has filled it.
    thp : ThpSpec, optional
        Which regions get pages of `page_order`; None: all memory but that of files does.

    Attributes
    ----------
    faults, copies, strays : int
        Page faults; pages copied after a fork; faults for which the regions declared gave no right (a trace does not
        tell of everything that gives a program its rights), which are mended as if they had.
    processes : dict
        By pid.
    files : PageCache or None
        Of the files that programs read and write; None: there is no disk.
    hints : callable or None
        Of a program on the host itself: told of an access to a page whose next one was to be noticed.
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
        cpus: int = 1,
        zero_page: bool = False,
        thp: ThpSpec | None = None,
    ) -> None:
        self.memory = memory
        self.mmu = mmu
        self.frames = frames
        self.page_order = page_order
        self.huge = HugePages(thp) if thp else None
        self.costs = costs
        self.cpus = Cpus(mmu, pcids, cpus)
        self.tables = PageTables(
            memory, mmu, frames, levels=levels, costs=costs, invalidate=self.cpus.split, kernel_half=kernel_half
        )
        self.sharing = Sharing(frames.frames)
        self.spaces = AddressSpaces(
            self.tables, frames, self.sharing, costs, flushes=self.cpus, large=page_order > 0, ranges=ranges
        )
        self.zeros = ZeroPages(frames, mmu, self.sharing, costs, used=zero_page)
        self.processes: dict[int, Process] = {}
        self.files: PageCache | None = None
        self.hints: Hints | None = None
        self.current = [Process(INIT, 0, Space(NO_ROOT))] * cpus
        self.dying = set()
        self._idle = set()
        self._born = {}
        self.own_tables: list[int] = kernel_half.tables if kernel_half else []  # frames
        self.editing = 0  # who is at work on entries that they have read, which the host leaves alone meanwhile
        self.faults = 0
        self.times = FaultTimes()
        self.copies = 0
        self.strays = 0
        self._levels = levels
        self._fault_cycles = costs.fault_delivery + costs.guest_fault
        self._known = page_order == 0 and mmu.known
        self._operates = cpus == 1 and (ranges is None or mmu.known) and kernel_half is None
        self._columns = np.empty((COLUMNS, ROOM), np.int64)
        self._demand = np.zeros(cpus, DEMAND)
        self._demand["levels"] = levels
        self._demand["table"] = TABLE_BITS
        self._demand["owner"] = frames.owner
        self._demand["traps"] = mmu.traps
        self._demand["loads"] = mmu.loads_trap
        self._demand["batch"] = frames.batch
        self._demand["fault"] = self._fault_cycles
        self._demand["clear"] = costs.zero_page
        self._demand["zeros"] = NO_FRAME
        self._demand["each_table"] = self.tables.table_cycles
        self._demand["each_page"] = costs.unmap_page
        self._demand["each_edit"] = costs.entry_edit
        self._expected: list[tuple[Any, ...]] = [()] * cpus

    @property
    def root(self) -> int:
        """The gpa of the root table of the process that the first CPU runs; negative before the guest has booted."""
        return self.root_of(0)

    @property
    def roots(self) -> list[int]:
        """The gpas of the root tables of all address spaces, each once: it may be several processes'."""
        return [*{process.space.root for process in self.processes.values()}, *(space.root for space in self.dying)]

    def root_of(self, cpu: int) -> int:
        """Return the gpa of the root table of the process that a CPU runs; negative before the guest has booted."""
        return self.current[cpu].space.root

    @property
    def alone(self) -> bool:
        """Whether it has one CPU, so that none waits for another."""
        return len(self.current) == 1

    def boot(self, vcpu: Vcpu) -> Steps[None]:
        """Make the first process; the tables below its root come with the faults."""
        space = Space((yield from self.tables.new_root(vcpu)))
        yield from self.zeros.boot(vcpu)
        self._demand["zeros"] = self.zeros.small
        self.processes[INIT] = Process(INIT, 0, space)
        self.current = [self.processes[INIT]] * len(self.current)
        yield from self.cpus.load(vcpu, space, first=True)

    def start(self, vcpu: Vcpu) -> Steps[None]:
        """Have a CPU run the first process, by another thread of it where one CPU does already."""
        yield from self.cpus.start(vcpu, self.current[vcpu.number].space)

    def stop(self, vcpu: Vcpu) -> None:
        """Note that what a CPU ran has ended."""
        self._idle.add(vcpu.number)
        self.cpus.stop(vcpu.number)

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
        start, before, vcpu.kind = vcpu.now, vcpu.kind, 0
        cycles = self._fault_cycles if delivered else self.costs.guest_fault
        if code & CODE_PRESENT:
            yield from self._handle(vcpu, gva, code, cycles)
        else:
            with vcpu.first():
                yield from self._handle(vcpu, gva, code, cycles)
        kind = FaultKind.GUEST_MAJOR if vcpu.kind == FaultKind.SWAP_IN_MAJOR else FaultKind.GUEST
        self.times.add(vcpu.now - start, kind=kind)
        vcpu.kind = before

    def _handle(self, vcpu: Vcpu, gva: int, code: int, cycles: int) -> Steps[None]:
        vcpu.owe("guest_fault", cycles)
        while True:
            space = self.current[vcpu.number].space
            if not space.lock.take(write=False):
                yield from space.lock.acquire(vcpu, write=False)
            with space.lock:
                if space is self.current[vcpu.number].space:  # no exec by another thread while this one waited
                    yield from self._resolve(vcpu, space, gva, code)
                    return

    def _resolve(self, vcpu: Vcpu, space: Space, gva: int, code: int) -> Steps[None]:
        write = code & CODE_WRITE != 0
        plain = PAGE_BITS | DIRTY if write else PAGE_BITS
        bits = self._bits(space, gva, write) if len(space.regions) else plain
        kind = space.regions.at(gva) or 0
        if not code & CODE_PRESENT:
            if self.spaces.swapped and gva >> PAGE_SHIFT in space.away:
                yield from self.swap_in(vcpu, space, gva, bits, write=write)
                return
            if self.hints and (yield from self._notice(vcpu, space, gva, self.hints)):
                return
            zeros = self.zeros.used and not write and not kind & KINDS
            order = 0
            if self.page_order and not kind & FILE:
                order = yield from self._order_for(vcpu, space, gva, kind, zeros)
            if zeros and self.zeros.serves(order):
                if not (yield from self._put_zeros(vcpu, space, gva, order, bits)):
                    yield from self._mend_there(vcpu, space, gva, bits)
                return
            if kind & FILE and not write:
                page = yield from self.frames.allocate_cached(vcpu)
                if (yield from self._put(vcpu, space, gva, 0, page, bits, cached=True)):
                    yield from self._around(vcpu, space, gva, bits)
                    return
                yield from self._mend_there(vcpu, space, gva, bits)
                return
            page = yield from self.frames.allocate(vcpu, order)
            while page == NO_FRAME:  # the last large block went to another VM meanwhile
                order = self._order_at(space, gva) if order > 9 else 0
                page = yield from self.frames.allocate(vcpu, order)
            if not kind & FILE:
                vcpu.owe("guest_fault", self.costs.zero_page << order)
            elif not kind & SHARED:
                vcpu.owe("guest_fault", self.costs.copy_page)
            if (yield from self._put(vcpu, space, gva, order, page, bits)):
                if order and self.huge:
                    self.huge.counts["thp_fault_alloc"] += 1
                return
        yield from self._mend_there(vcpu, space, gva, bits)

    def _expect_nothing(self, cpu: int) -> None:
        self._demand["open"][cpu] = self._demand["operates"][cpu] = 0
        self._expected[cpu] = ()

    def fast(self, cpu: int, bill: NDArray[Any]) -> Guest:
        """Return its state as compiled code works for a CPU with it.

        That does nothing while another changes the space. What is done is put on the vCPU's `bill`, BILL[1].
        """
        process = self.current[cpu]
        space, regions, frames, demand = process.space, process.space.regions, self.frames, self._demand[cpu : cpu + 1]
        if self._known:
            is_open = not (space.lock.writing or space.entries.writing or space.away)
            operates = is_open and self._operates and not frames.wanted
            expected = regions, regions.edits, space.root, process.pid, is_open, operates
            if expected != self._expected[cpu]:
                self._expected[cpu] = expected
                for name, value in zip(_EXPECTED, (*expected[2:], 0, 0), strict=True):
                    demand[name] = value
        allocator = frames.zone, frames.frames, demand, frames.ready.words
        return Guest(self.memory, self.tables.backing, *allocator, bill, regions.rows, self.sharing.more, self._columns)

    def register(self, ledger: Ledger) -> None:
        """Say what it counts."""
        ledger.counters("guest", lambda: {"faults": self.faults, "copies": self.copies, "strays": self.strays})
        if self.huge:
            self.huge.register(ledger)

    def collect(self, vcpu: Vcpu, done: Collected) -> None:
        """Count what compiled code has done: page faults and system calls, and their cycles."""
        if done.faults:
            self.faults += done.faults
            with vcpu.first():
                vcpu.owe("guest_fault", done.guest)
        if done.kernel:
            vcpu.owe("guest_fault", done.kernel)
        if done.compute:
            vcpu.owe("compute", done.compute)
        if done.flushes:
            self.cpus.flushed(vcpu.number, self.current[vcpu.number].space, done.flushes)
        if done.given:
            self.frames.gave(done.given)

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
            largest = 0 if self.huge and self.huge.spec.advised else self.page_order
            for order in (largest, 0):  # what no large page can be had for is mapped with small ones
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

    def buffer(self, vcpu: Vcpu, pid: int, address: int, length: int) -> Steps[NDArray[np.int64]]:
        """Return the guest frames of a buffer as far as it is mapped, as the guest's driver tells its device.

        All of them are backed by then: the host brings back what it has taken.
        """
        root = self.processes[pid].space.root
        while True:
            gfns = yield from self.tables.frames_of(vcpu, root, address, length)
            if not (yield from self.frames.ensure(vcpu, gfns)):
                return gfns

    def _bits(self, space: Space, gva: int, write: bool) -> int:
        """Return the bits of an entry that lets a page be read, or written, and what else its region allows."""
        rights = space.regions.at(gva)
        allowed = rights is None or rights & WRITABLE != 0
        if not (allowed if write else rights is None or rights & RIGHTS_OF):
            self.strays += 1
        if rights is not None and rights & FILE and not write:  # written to, it is copied, or noted as dirty
            return READ_ONLY
        return (PAGE_BITS if allowed or write else READ_ONLY) | (DIRTY if write else 0)
