"""How a monitor backs a guest frame, where somebody may have to be waited for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NEVER, Host, MemorySlot, Pool, Steps, Stop, Vcpu, VmStopped, Words
from vmsim.contracts.faults import FaultKind, FaultTimes
from vmsim.frames.records import NO_FRAME, State
from vmsim.machine.formats import CODE_WRITE, FRAME, LARGE_ORDERS, PAGE_SHIFT
from vmsim.monitor.backing.bringing import Bringing
from vmsim.monitor.backing.commit import NestedMode, back_around, chunk_of, make_nested, map_frames
from vmsim.monitor.features.base import Feature
from vmsim.monitor.mmu_lock import MmuLock
from vmsim.scenario.cpu import Cost
from vmsim.tables.backing import BALLOONED, page_of, populate_backing, shared_frame
from vmsim.tables.edit import BLOCKED, MAPPED

__all__ = ["Held", "HostPages"]

_NO_TABLES = np.empty(0, np.int64)


@dataclass
class Held:
    """What a fault has while it waits: a page, or NO_FRAME, its order; and the cycles of copies that it has made."""

    page: int = NO_FRAME
    order: int = 0
    broken: int = 0


class HostPages(Bringing):
    """The pages that one VM's memory lies in, and how more of them come.

    By itself it is no table of any processor: where a page lies, the host says (`MemorySlot.backing`), as in Linux the
    page tables of the process that runs the VM do (virt/kvm/kvm_main.c, `hva_to_pfn`). Monitors with nested tables are
    of this class, and have an entry for each page besides; a shadow and a vkernel's host have one.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    host : Host
        Who has which frame.
    pool : Pool
        The monitor's pages.
    slot : MemorySlot
        The host's truth of the VM's memory.
    owner : int
        The VM.
    page_order : int
        Of the pages that the host is asked for: 0, 9 or 18.
    costs : Cost
        Cycles of the host's work.
    chunk : int
        Guest frames that are backed together.
    lock : MmuLock, optional
        That of the VM's MMU; None: nobody waits for another.
    entry : int
        Cycles of the entry that maps a page, in tables of its own.
    """

    features: Sequence[Feature] = ()
    reason = ""  # of exits that are its own; it has none
    root = levels = 0  # of tables of its own: there are none
    backs = True  # compiled code backs frames

    def __init__(
        self,
        memory: NDArray[np.int64],
        host: Host,
        pool: Pool,
        slot: MemorySlot,
        *,
        owner: int,
        page_order: int,
        costs: Cost,
        chunk: int = 1,
        lock: MmuLock | None = None,
        entry: int = 0,
    ) -> None:
        self.memory = memory
        self.host = host
        self.pool = pool
        self.slot = slot
        self.backing = slot.backing
        self.pages = len(slot.backing)
        self.owner = owner
        self.page_order = page_order
        self.costs = costs
        self.chunk = chunk
        self.lock = lock or MmuLock()
        self.compiled = True
        self.latency = FaultTimes()
        self.exits: Counter[str] = Counter()
        self.exit_cycles: Counter[str] = Counter()
        self._mapping = pool.prices.page + entry
        self.each_table = costs.violation_pool + costs.table_page + pool.prices.table
        self._nested = make_nested(
            frames=self.pages,
            most=1,
            mapping=self._mapping,
            each_table=self.each_table,
            chunk=chunk,
            order=page_order,
            finding=pool.prices.page,
            reads=self.lock.shared,
        )
        self._floor = NEVER
        arrays = memory, self.backing, host.frames, self._nested, _NO_TABLES, np.empty(1, np.int64)
        self._mode = NestedMode(*arrays, np.empty(0, np.bool_), self.lock.words, _NO_TABLES)

    def price_touches(self, *, before: int, after: int, reason: int) -> None:
        """Say what an exit costs at a frame that the guest's kernel writes to, until a page is asked for and since.

        `reason` is its number among the monitor's. The entry is no other vCPU's to wait for.
        """
        for name, value in (("before", before), ("resume", after), ("reason", reason), ("locks", 0)):
            self._nested[name] = value

    def prepare(self, take: Callable[[int, State], list[int]]) -> None:
        """Back all guest memory before the clock starts."""
        self.populate()

    def create(self, vcpu: Vcpu) -> Steps[None]:
        """Take what no guest can start without: nothing."""
        yield from ()

    def populate(self) -> None:
        """Back all guest memory before the clock starts, large pages first.

        Raises
        ------
        VmStopped
            The host's memory does not suffice.
        """
        host, reached, end = self.host, 0, self.at_start
        for order in (self.page_order, 0):
            whole = end >> order << order
            given = host.zone, host.frames, self.owner, self.backing
            reached = int(populate_backing(*given, reached, whole, order)) if reached < whole else reached
            if order and reached < whole:  # no block of that order is left for any of the others
                host.failures[self.owner, order] += (whole - reached) >> order
        if reached < end:
            raise VmStopped(Stop.NOT_BACKED)

    @property
    def at_start(self) -> int:
        """Guest frames that are backed before the clock starts: all before the first that the guest has not then."""
        absent = np.flatnonzero(self.backing & BALLOONED)
        return int(absent[0]) if len(absent) else self.pages

    def frames_of(self, gfns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the host's frames that hold guest frames, int64[n]; each must be backed."""
        return np.asarray((self.backing[gfns] & FRAME) >> PAGE_SHIFT)

    def back(self, vcpu: Vcpu, gpa: int, code: int = 0) -> Steps[int]:
        """Map the page of `gpa`, and those that stand with it in a chunk; return the cycles of what was done.

        A shared page is mapped to be read, or where the code says that it is written to, copied (`unshare`). So is a
        clean one, whose slot on the swap device is given up when it is written to (mm/memory.c, do_swap_page).
        """
        gfn, held = gpa >> PAGE_SHIFT, Held()
        away = self.slot.away(gfn)
        if away:
            write = code & CODE_WRITE != 0
            cycles, mapped = yield from self.slot.bring(vcpu, gfn, write=write, commit=self.bring_cached)
            cycles += self.lock.find(vcpu.now, self.pool.prices.page, vcpu.number)
            if mapped:
                return cycles
            held.broken += cycles
        for feature in self.features:
            if (backed := (yield from feature.back(vcpu, gpa, code))) is not None:
                return held.broken + backed
        takes = not away or self.chunk > 1  # a page that comes back is no page of the pool's
        if self.page_order or (takes and self.calls_host(self.chunk)):
            yield vcpu.settle()
        tables, most = list[Any](), self.remapped_order
        while True:
            own, stable = yield from self.find_page(vcpu, gpa, code, held, most)
            page, order = own or (held.page, held.order)
            missing = self.enter_page(gfn, order, page, tables, only_read=stable is not None)
            if missing == BLOCKED and own:  # a table of smaller pages stands there
                if (flushed := self.replace_table(vcpu, gpa)) >= 0:
                    held.broken += flushed
                else:
                    most = 0
                continue
            if missing > len(tables):
                tables += yield from self.take_tables(vcpu, missing - len(tables))
                continue
            break
        if own is None:
            vcpu.kind = max(vcpu.kind, FaultKind.ZERO_FILL)
        if own is None and missing >= 0:
            self.slot.arrived(gfn & -(1 << order), page, order)
        elif stable is not None:
            if not self.slot.clean(gfn):
                self.host.frames["rmap"][stable] = 0  # it has several entries
        elif own and missing == MAPPED:  # but not to be written to
            self.permit(gpa)
        if own or missing < 0:  # it came back while this vCPU waited
            self.give_back(held)
        if len(tables) > missing:
            self.return_tables(tables[max(missing, 0) :])
        for feature in self.features:
            feature.note(gfn)
        cycles = self.mapping_cycles(missing, 0 if own else order)
        if own:  # it takes no page
            cycles -= self.pool.prices.page
        elif not away:
            cycles += self.lock.find(vcpu.now, self.pool.prices.page, vcpu.number)
        if self.chunk > 1 and order == 0:
            cycles += self._mapping * self._around(gfn)
        return cycles + held.broken

    @property
    def remapped_order(self) -> int:
        """Of the largest page that is mapped as a whole once more, where it has lost its entry."""
        return self.page_order

    def enter_page(self, gfn: int, order: int, page: int, tables: list[Any], *, only_read: bool) -> int:
        """Map the page `page` of 2**order frames around a guest frame; return what `map_frames` does."""
        bits = self.entry_bits(order, only_read=only_read)
        return int(map_frames(self._mode, gfn, order // 9 + 1, page, np.array(tables, np.int64), bits))

    def take_tables(self, vcpu: Vcpu, count: int) -> Steps[list[Any]]:
        """Return what so many tables of its own are made of."""
        return (yield from self.take(vcpu, count))

    def return_tables(self, tables: list[Any]) -> None:
        """Give back what no tables were made of."""
        self.pool.put(tables)

    def entry_bits(self, order: int, *, only_read: bool) -> int:
        """Return what an entry of its own for a page of 2**order frames has besides the address."""
        return 0

    def permit(self, gpa: int) -> None:
        """Give an entry of its own the right to write: there is none."""

    def has_room(self, gpa: int, order: int) -> bool:
        """Return whether tables of its own could map a page of 2**order frames around `gpa`."""
        return True

    def replace_table(self, vcpu: Vcpu, gpa: int) -> int:
        """Make room for a large page where a table of its own maps nothing; return the cycles, -1: there is none."""
        return -1

    def find_page(
        self, vcpu: Vcpu, gpa: int, code: int, held: Held, most: int
    ) -> Steps[tuple[tuple[int, int] | None, int | None]]:
        """Find the page that `gpa` lies in, of 2**`most` frames at most, or take one; copy one that is shared first.

        Nothing has waited since it last looked.

        Returns
        -------
        (own, stable) : tuple
            Frame and order of the page that the host has, None where it is to be `held.page`; and the frame that may
            only be read, for others share it or the swap device has the same.
        """
        gfn, write = gpa >> PAGE_SHIFT, code & CODE_WRITE != 0
        while True:
            if self.slot.away(gfn):
                held.broken += (yield from self.slot.bring(vcpu, gfn, write=write))[0]
                continue
            if write and self.slot.clean(gfn):
                self.slot.soil(gfn)
                held.broken += self.pool.prices.copied
            stable = shared_frame(self.backing, gfn)
            if stable is not None and write:
                if held.page != NO_FRAME:
                    held.broken += self.unshare(vcpu, gfn, held.page, held.order)
                    held.page = NO_FRAME
                else:
                    held.page, held.order = (yield from self.take(vcpu, 1))[0], 0
                continue
            own = page_of(self.backing, gfn, most) if stable is None else (stable, 0)
            if own is not None or held.page != NO_FRAME:
                return own, stable
            held.page, held.order = self._large_page(gpa, held) if self.page_order else (NO_FRAME, 0)
            if held.page == NO_FRAME:
                held.page = (self.pool.take(1) or (yield from self.take(vcpu, 1)))[0]  # nearly always the first

    def give_back(self, held: Held) -> None:
        """Give a page back that was not needed."""
        if held.page != NO_FRAME:
            self._return(held.page, held.order)

    def unshare(self, vcpu: Vcpu, gfn: int, page: int, order: int = 0) -> int:
        """Give a guest frame that is shared the page `page`, if that is a small one; return the cycles of it.

        Linux copies it whoever else still shares it (mm/memory.c, do_wp_page and wp_can_reuse_anon_folio).
        """
        if order:
            self._return(page, order)
            return 0
        vcpu.kind = max(vcpu.kind, FaultKind.SHARE_BREAK)
        return self.pool.prices.copied + self.costs.copy_page + self.slot.unshare(vcpu, gfn, page)

    def take(self, vcpu: Vcpu, count: int) -> Steps[list[int]]:
        """Take pages from the pool; where it has too few, the vCPU is suspended until the host has refilled it."""
        if self.calls_host(count):
            yield vcpu.settle()
        taken = self.pool.take(count)
        if not taken:
            starved = self.pool.starved
            taken = yield from vcpu.wait(self.pool.request(count), "pool_wait")
            kind = FaultKind.POOL_WAIT if self.pool.starved == starved else FaultKind.DIRECT_RECLAIM
            vcpu.kind = max(vcpu.kind, kind)
        return taken

    def calls_host(self, count: int) -> bool:
        """Whether the host has to be called when so many pages are taken. Else the pool is the VM's own."""
        return self.pool.level - count < self.pool.floor

    def _around(self, gfn: int) -> int:
        """Back what else lies in the aligned chunk of `gfn`, as far as the pool has pages at hand; return how many."""
        first, last = chunk_of(self._nested[0], gfn)
        wanted: Words = first + np.flatnonzero(self.backing[first:last] == 0)
        wanted = wanted[: self.pool.reach(len(wanted))]
        if len(wanted):
            self.back_each(gfn, wanted, self.pool.take(len(wanted)))
            for feature in self.features:
                for each in wanted.tolist():
                    feature.note(each)
        return len(wanted)

    def back_each(self, gfn: int, gfns: Words, pages: list[int]) -> None:
        """Back some frames of the chunk of `gfn`, all that never were, with as many pages."""
        back_around(self._mode, gfn, np.array(pages))

    def mapping_cycles(self, tables: int, order: int) -> int:
        """Return the cycles from the pages taken to the entry written, where tables or a large page were made."""
        cycles = self._mapping
        if tables > 0:
            cycles += tables * self.each_table
        if order:
            cycles += self.pool.prices.of_order(order) - self.pool.prices.page
        return cycles

    def lock_wait(self, vcpu: Vcpu, cycles: int) -> int:
        """Return what a fault takes longer for the MMU's lock, which backs a frame in so many cycles from now on."""
        return self.lock.fault(vcpu.now, cycles, vcpu.number, finding=self.pool.prices.page)

    def expect_own(self, gpa: int) -> None:
        """Refuse to back what is no memory of the VM's.

        Raises
        ------
        VmStopped
            `gpa` is beyond it. KVM takes it for a device's and leaves it to the process that runs the VM
            (KVM_EXIT_MMIO); there are no devices here, so the VM cannot go on.
        """
        if gpa >> PAGE_SHIFT >= self.pages:
            raise VmStopped(Stop.BEYOND_MEMORY, who="the monitor", address=gpa)

    def _return(self, page: int, order: int) -> None:
        """Give an unused page back to where it came from."""
        if order:
            self.host.give_block(page, order)
        else:
            self.pool.put([page])

    def _large_page(self, gpa: int, held: Held) -> tuple[int, int]:
        """Return (pfn, order) of a large page for `gpa`, or (NO_FRAME, 0) where none fits or none is free."""
        for order in LARGE_ORDERS[self.page_order]:
            size = 1 << order
            gfn = (gpa >> PAGE_SHIFT) & ~(size - 1)
            if gfn + size > self.pages or self.backing[gfn : gfn + size].any():
                continue
            if not self.has_room(gpa, order):
                continue
            pfn = self.pool.take_block(order)
            if pfn == NO_FRAME and self.slot.collapses and (cycles := self.pool.make_room(order)):
                held.broken += cycles
                pfn = self.pool.take_block(order)
            if pfn != NO_FRAME:
                return pfn, order
        return NO_FRAME, 0

    @property
    def nested(self) -> NestedMode:
        """Its tables as compiled code fills them, and the pool that it takes pages from."""
        floor, words = self.pool.floor if self.compiled and self.backs else NEVER, self.pool.pages.words
        if floor != self._floor:
            self._nested["least"] = self._floor = floor
        if words is not self._mode.pool:
            self._mode = self._mode._replace(pool=words)
        if (swap := self.slot.swap if self.backs and not self.features else _NO_TABLES) is not self._mode.swap:
            self._mode = self._mode._replace(swap=swap)
        return self._mode
