"""Two-dimensional paging: EPT or NPT (KVM's tdp MMU).

An EPT violation or NPF is handled step by step: exit, find the gfn's place in the nested tables, take pages from the
pool (the vCPU is suspended while there are none), write the entry, note it in the reverse map, resume.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.histogram import Histogram
from vmsim.contracts import NEVER, Exit, Host, MemorySlot, Pool, Resume, Steps, Stop, Vcpu, VmStopped
from vmsim.contracts.commit import clear_bill, make_bill
from vmsim.frames.buddy import NO_FRAME, State, use
from vmsim.machine.formats import CODE_WRITE, ENTRIES, FRAME, LARGE_ORDERS, PAGE_SHIFT, PRESENT, WRITE, NestedFormat
from vmsim.machine.layout import set_nested
from vmsim.machine.memory import clear_frame
from vmsim.machine.vcpu import Reason
from vmsim.monitor.features.base import Feature
from vmsim.monitor.mmu_lock import MmuLock
from vmsim.monitor.tdp.commit import NestedMode, back_around, back_frames, chunk_of, make_nested, map_frames
from vmsim.monitor.tdp.featured import Featured
from vmsim.monitor.tdp.second import NestedEntries
from vmsim.scenario.cpu import Cost
from vmsim.tables.backing import IDENTITY, fill_backing, page_of, shared_frame
from vmsim.tables.dirty import split
from vmsim.tables.edit import BLOCKED, MAPPED, missing_tables, populate

__all__ = ["Tdp"]

_NO_TABLES = np.empty(0, np.int64)
_GUEST_FAULT, _VIOLATION = int(Reason.GUEST_FAULT), int(Reason.VIOLATION)


class Tdp(NestedEntries, Featured):
    """Nested tables of one VM, and the exits that build them.

    Parameters
    ----------
    slot : MemorySlot
        The host's truth of the VM's memory.
    lock : MmuLock, optional
        That of its entries; None: nobody waits for another.
    exited : callable, optional
        Called with the vCPU at each VM exit, the entry after it included, where that makes the processor forget
        translations: a VM without a tag (SDM vol. 3C §30.4.3.1, APM vol. 2 §15.16).
    """

    nested_rights = True

    def __init__(
        self,
        memory: NDArray[np.int64],
        registers: NDArray[Any],
        host: Host,
        pool: Pool,
        form: NestedFormat,
        slot: MemorySlot,
        *,
        owner: int,
        levels: int,
        page_order: int,
        costs: Cost,
        chunk: int = 1,
        reason: str = "EPT_VIOLATION",
        exited: Callable[[Vcpu], None] | None = None,
        lock: MmuLock | None = None,
    ) -> None:
        self.lock = lock or MmuLock()
        self.memory = memory
        self.host = host
        self.pool = pool
        self.form = form
        self.owner = owner
        self.slot = slot
        self.backing = slot.backing
        self.pages = pages = len(slot.backing)
        self._end = pages << PAGE_SHIFT
        self.levels = levels
        self.page_order = page_order
        self.denied = self.withheld = 0
        self.features: list[Feature] = []
        self.costs = costs
        self.chunk = chunk
        self.reason = reason
        self.root = 0
        self.exits: Counter[str] = Counter({reason: 0})
        self.exit_cycles: Counter[str] = Counter({reason: 0})
        self.latency = Histogram()
        self.registers = registers
        self._before = costs.vm_exit + costs.violation_walk
        self._mapping = costs.violation_pool + costs.violation_entry + costs.violation_rmap
        self._resume = costs.violation_resume
        self.exited = exited or _keep
        self.compiled = True
        self._each_table = costs.violation_pool + costs.table_page
        self.reasons = (reason,)
        self._bill = make_bill()  # of what is backed outside a run
        self._nested = make_nested(
            frames=pages,
            page=form.page,
            table=form.table,
            before=self._before,
            mapping=self._mapping,
            each_table=self._each_table,
            resume=self._resume,
            chunk=chunk,
            order=page_order,
            finding=costs.violation_pool,
            reads=self.lock.shared,
        )
        self._floor = NEVER
        arrays = memory, self.backing, host.frames, self._nested, _NO_TABLES, np.empty(1, np.int64)
        self._mode = NestedMode(*arrays, np.empty(0, np.bool_), self.lock.words)
        set_nested(registers, form, levels)

    @property
    def memory_root(self) -> tuple[int, int]:
        """Root table and levels by which guest memory is found."""
        return self.root, self.levels

    def install(self, root: int) -> None:
        """Make frame `root` the empty root table (EPTP, nCR3)."""
        use(self.host.frames, np.array([root]), int(State.TABLE))
        self.root = root << PAGE_SHIFT
        clear_frame(self.memory, self.root)
        self.registers["nested_root"] = self.root
        self._nested["root"], self._nested["levels"] = self.root, self.levels

    def prepare(self, take: Callable[[int, State], list[int]]) -> None:
        """Back all guest memory before the clock starts."""
        self.install(take(1, State.TABLE)[0])
        self.populate()

    def create(self, vcpu: Vcpu) -> Steps[None]:
        """Take the root table from the pool."""
        pages = yield from self.take(vcpu, 1)
        self.install(pages[0])

    def populate(self) -> None:
        """Back all guest memory before the clock starts.

        Raises
        ------
        VmStopped
            The host's memory does not suffice.
        """
        tables, page = np.empty(8, np.int64), np.empty(1, np.int64)
        reached, end = 0, self.pages << PAGE_SHIFT
        for order in (self.page_order, 0):
            whole = end & ~((1 << (PAGE_SHIFT + order)) - 1)
            if reached < whole:
                reached = populate(
                    self.memory,
                    self.host.zone,
                    self.host.frames,
                    self.owner,
                    self.root,
                    self.levels,
                    order // 9 + 1,
                    IDENTITY,
                    reached,
                    whole,
                    self.form.table,
                    self.form.page & ~self.denied if order else self.form.page,
                    tables,
                    page,
                )
                if order and reached < whole:  # no block of that order is left for any of the others
                    self.host.failures[self.owner, order] += (whole - reached) >> (PAGE_SHIFT + order)
        fill_backing(self.memory, self.backing, self.root, self.levels)
        if reached < end:
            raise VmStopped(Stop.NOT_BACKED)

    def touch(self, vcpu: Vcpu, gfn: int, order: int) -> Steps[None]:
        """Write to 2**order guest frames: each that has no host frame exits once and gets one."""
        limit = gfn + (1 << order)
        while gfn < limit:
            if mode := self.fast(vcpu):
                if self.lock:
                    self._bill["begun"] = vcpu.now
                gfn = back_frames(mode, self._bill, max(vcpu.left, 1), gfn, limit)
                if self._bill["logged"][0]:
                    self.collect(vcpu, self._bill)
                    clear_bill(self._bill)
                    self.exited(vcpu)
                    if gfn < limit and vcpu.left <= 0:
                        yield vcpu.settle()
                        continue
            if gfn < limit and not self.backed(gfn):
                if self.features:
                    yield from self.handle(vcpu, Exit(_VIOLATION, 0, gfn << PAGE_SHIFT, CODE_WRITE, write=True))
                else:
                    yield from self.violation(vcpu, gfn << PAGE_SHIFT, CODE_WRITE)
                if gfn + 1 < limit and vcpu.left <= 0:
                    yield vcpu.settle()
            gfn += 1

    def backed(self, gfn: int) -> bool:
        """Whether a guest frame has a host frame of its own, and an entry that maps it."""
        return bool(self.backing[gfn] & PRESENT) and not any(feature.unmaps(gfn) for feature in self.features)

    def frames_of(self, gfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the host's frames that hold guest frames, int64[n]; each must be backed."""
        return np.asarray((self.backing[gfns] & FRAME) >> PAGE_SHIFT)

    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume]:
        """Handle a violation, by the first feature whose it is; a page fault is the guest kernel's, and no exit."""
        if exit.reason == _GUEST_FAULT:
            yield from self.deliver(vcpu, exit.gva, exit.code)
            return Resume.RETRY
        for feature in self.features:
            if resume := (yield from feature.handle(vcpu, exit)):
                return resume
        yield from self.violation(vcpu, exit.gpa, exit.code)
        return Resume.RETRY

    def violation(self, vcpu: Vcpu, gpa: int, code: int = 0) -> Steps[None]:
        """Handle an EPT violation or NPF at `gpa`, with its error code: back it and resume.

        Raises
        ------
        VmStopped
            As of `expect_own`.
        """
        start = vcpu.now
        reason = self.reason
        self.exited(vcpu)
        with vcpu.first():
            vcpu.owe("exit", self._before)
            self.exit_cycles[reason] += self._before
            if gpa >= self._end:
                self.exits[reason] += 1  # the VM's last
                self.expect_own(gpa)
            cycles = yield from self.back(vcpu, gpa, code)
            cycles += self.lock_wait(vcpu, cycles) + self._resume
            vcpu.owe("exit", cycles)
        self.exit_cycles[reason] += cycles
        self.exits[reason] += 1
        self.latency.add(vcpu.now - start)

    def lock_wait(self, vcpu: Vcpu, cycles: int) -> int:
        """Return how long a fault waits for the MMU's lock, which backs a frame in so many cycles from now on."""
        finding = self.costs.violation_pool
        return self.lock.fault(vcpu.now + finding, max(cycles - finding, 0))

    def expect_own(self, gpa: int) -> None:
        """Refuse to back what is no memory of the VM's.

        Raises
        ------
        VmStopped
            `gpa` is beyond it. KVM takes it for a device's and leaves it to the process that runs the VM
            (KVM_EXIT_MMIO); there are no devices here, so the VM cannot go on.
        """
        if gpa >= self._end:
            raise VmStopped(Stop.BEYOND_MEMORY, who="the monitor", address=gpa)

    def io_exit(self, vcpu: Vcpu) -> None:
        """Leave the guest because it has told a device to work (SDM vol. 3C, exit reason 30)."""
        self.exited(vcpu)
        self.exits["IO"] += 1
        cycles = self.costs.vm_exit + self.costs.violation_resume
        self.exit_cycles["IO"] += cycles
        vcpu.owe("exit", cycles)

    def back(self, vcpu: Vcpu, gpa: int, code: int = 0) -> Steps[int]:
        """Map the page of `gpa`, and those that stand with it in a chunk; return the cycles of what was done.

        A shared page is mapped to be read, or where the code says that it is written to, copied (`unshare`).
        """
        for feature in self.features:
            if (cycles := (yield from feature.back(vcpu, gpa, code))) is not None:
                return cycles
        if self.page_order or self.calls_host(self.chunk):
            yield vcpu.settle()
        gfn, new, fresh, tables, broken = gpa >> PAGE_SHIFT, NO_FRAME, 0, list[int](), 0
        most = self.page_order
        while True:
            stable = shared_frame(self.backing, gfn)
            if stable is not None and code & CODE_WRITE:
                if new != NO_FRAME:
                    broken, new = broken + self.unshare(vcpu, gfn, new, fresh), NO_FRAME
                else:
                    new, fresh = (yield from self.take(vcpu, 1))[0], 0
                continue
            own = page_of(self.backing, gfn, most) if stable is None else (stable, 0)
            if own is None and new == NO_FRAME:
                new, fresh = self._large_page(gpa) if self.page_order else (NO_FRAME, 0)
                if new == NO_FRAME:
                    new = (self.pool.take(1) or (yield from self.take(vcpu, 1)))[0]  # a generator less, nearly always
                continue
            page, order = own or (new, fresh)
            bits = self.form.page & ~self.denied if order else self.form.page & (-1 if stable is None else ~WRITE)
            missing = int(map_frames(self._mode, gfn, order // 9 + 1, page, np.array(tables, np.int64), bits))
            if missing == BLOCKED and own:  # a table of smaller pages stands there
                most = 0
                continue
            if missing > len(tables):
                tables += yield from self.take(vcpu, missing - len(tables))
                continue
            break
        if own is None and missing >= 0:
            self.slot.arrived(gfn & -(1 << order), page, order)
        elif stable is not None:
            self.host.frames["rmap"][stable] = 0  # it has several entries
        elif own and missing == MAPPED:  # but not to be written to
            self.permit(gpa)
        if own and new != NO_FRAME:  # it came back while this vCPU waited
            self._return(new, fresh)
        if len(tables) > missing >= 0:
            self.pool.put(tables[missing:])
        for feature in self.features:
            feature.note(gfn)
        cycles = self._mapping if missing == 0 == order else self.mapping_cycles(missing, 0 if own else order)
        if own:  # it takes no page
            cycles -= self.costs.violation_pool
        if self.chunk > 1 and order == 0:
            cycles += self._mapping * self._around(gfn)
        return cycles + broken

    def unshare(self, vcpu: Vcpu, gfn: int, page: int, order: int = 0) -> int:
        """Give a guest frame that is shared the page `page`, if that is a small one; return the cycles of it.

        Linux copies it whoever else still shares it (mm/memory.c, do_wp_page and wp_can_reuse_anon_folio).
        """
        if order:
            self._return(page, order)
            return 0
        return self.costs.violation_pool + self.costs.copy_page + self.slot.unshare(vcpu, gfn, page)

    def split(self, gpa: int, table: int) -> None:
        """Map by a table of smaller pages, in frame `table`, what one large page maps around `gpa`."""
        split(self.memory, self.host.frames, self.root, self.levels, gpa, table, self.form.table, self.withheld)
        self.memory[table * ENTRIES : (table + 1) * ENTRIES] |= self.denied

    def fast(self, vcpu: Vcpu) -> NestedMode | None:
        """Return its state as compiled code handles violations with it."""
        return self.nested if self.compiled else None

    @property
    def nested(self) -> NestedMode:
        """Its tables as compiled code fills them, and the pool that it takes pages from."""
        floor, words = self.pool.floor if self.compiled else NEVER, self.pool.pages.words
        if floor != self._floor:
            self._nested["least"] = self._floor = floor
        if words is not self._mode.pool:
            self._mode = self._mode._replace(pool=words)
        return self._mode

    def take(self, vcpu: Vcpu, count: int) -> Steps[list[int]]:
        """Take pages from the pool; where it has too few, the vCPU is suspended until the host has refilled it."""
        if self.calls_host(count):
            yield vcpu.settle()
        taken = self.pool.take(count)
        if not taken:
            taken = yield from vcpu.wait(self.pool.request(count), "pool_wait")
        return taken

    def calls_host(self, count: int) -> bool:
        """Whether the host has to be called when so many pages are taken. Else the pool is the VM's own."""
        return self.pool.level - count < self.pool.floor

    def _around(self, gfn: int) -> int:
        """Back what else lies in the aligned chunk of `gfn`, as far as the pool has pages at hand; return how many."""
        first, last = chunk_of(self._nested[0], gfn)
        wanted = first + np.flatnonzero(self.backing[first:last] == 0)[: self.pool.level]
        if len(wanted):
            back_around(self._mode, gfn, np.array(self.pool.take(len(wanted))))
            for feature in self.features:
                for each in wanted.tolist():
                    feature.note(each)
        return len(wanted)

    def mapping_cycles(self, tables: int, order: int) -> int:
        """Return the cycles from the pages taken to the entry written, where tables or a large page were made."""
        costs = self.costs
        cycles = self._mapping
        if tables > 0:
            cycles += tables * self._each_table
        if order:
            cycles += costs.message + costs.grant_fixed + costs.zero(order) - costs.violation_pool
        return cycles

    def _return(self, page: int, order: int) -> None:
        """Give an unused page back to where it came from."""
        if order:
            self.host.give_block(page, order)
        else:
            self.pool.put([page])

    def _large_page(self, gpa: int) -> tuple[int, int]:
        """Return (pfn, order) of a large page for `gpa`, or (NO_FRAME, 0) where none fits or none is free."""
        for order in LARGE_ORDERS[self.page_order]:
            size = 1 << order
            gfn = (gpa >> PAGE_SHIFT) & ~(size - 1)
            if gfn + size > self.pages or self.backing[gfn : gfn + size].any():
                continue
            if missing_tables(self.memory, self.root, self.levels, order // 9 + 1, IDENTITY, gpa) < 0:
                continue
            pfn = self.pool.take_block(order)
            if pfn != NO_FRAME:
                return pfn, order
        return NO_FRAME, 0


def _keep(vcpu: Vcpu) -> None:
    """Forget nothing at a VM exit: the VM has a tag."""
