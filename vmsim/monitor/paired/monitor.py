"""Paired tables, as in Akaros: the address space of a process is the guest-physical space of the guest in it.

An EPT violation (or NPF) is a page fault of the process: the page is mapped in the KPT and in the EPT, and the guest,
whose own tables the walker goes through as under EPT, resumes. Tables come from the host's kernel, pages from the
monitor's pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Flush, MemorySlot, Pool, Steps, Stop, Vcpu, VmStopped, Words
from vmsim.frames.records import NO_FRAME, State
from vmsim.machine.formats import ENTRIES, NPT, PAGE_SHIFT, WRITE, NestedFormat
from vmsim.machine.memory import find_entry
from vmsim.monitor.paired.check import Pair as Roots
from vmsim.monitor.paired.check import problems_of_pairs, tables_in
from vmsim.monitor.paired.layout import Pair, PairedHost, order_of, price
from vmsim.monitor.paired.mode import Layout
from vmsim.monitor.paired.space import UVPT_SLOT, PairedSpace, beyond, limit_of
from vmsim.monitor.runs import zap_runs
from vmsim.monitor.tdp.monitor import Tdp
from vmsim.scenario.cpu import Cost

__all__ = ["Paired"]


_TABLE_SPAN = ENTRIES << PAGE_SHIFT


class Paired(Tdp):
    """KPT and EPT of one VM, and the exits that build them.

    Parameters are as of `Tdp`, with what all paired processes share, and where the halves lie.
    """

    def __init__(
        self,
        shared: PairedHost,
        registers: NDArray[Any],
        pool: Pool,
        form: NestedFormat,
        slot: MemorySlot,
        *,
        layout: Layout,
        owner: int,
        levels: int,
        page_order: int,
        costs: Cost,
        chunk: int = 1,
        reason: str = "EPT_VIOLATION",
        exited: Callable[[Vcpu], None] | None = None,
    ) -> None:
        super().__init__(
            shared.memory,
            registers,
            shared.host,
            pool,
            form,
            slot,
            owner=owner,
            levels=levels,
            page_order=page_order,
            costs=costs,
            chunk=chunk,
            reason=reason,
            exited=exited,
        )
        self.backs = False  # in two tables at once
        self.shared = shared
        self.table_order = order_of(layout)
        self.space = PairedSpace(shared, form, owner=owner, levels=levels, layout=layout, guest=True)

    @property
    def pairs(self) -> list[Roots]:
        """Both tables, unless one is both."""
        if self.space.layout == "shared":
            return []
        return [(self.space.kpt, self.root, self.levels, limit_of(self.levels))]

    @property
    def host_slot(self) -> int | None:
        """Where the host's kernel begins, if the table that is both has its mappings too: at UVPT."""
        return UVPT_SLOT if self.space.layout == "shared" else None

    @property
    def frames_held(self) -> int:
        """Tables of the KPT."""
        return tables_in(self.memory, self.pairs)

    def problems(self, frames: NDArray[Any]) -> Iterable[str]:
        """Yield what KPT and EPT do not have in common."""
        return problems_of_pairs(self.memory, self.pairs, nested="NPT" if self.form == NPT else "EPT")

    def table_moved(self, old: int, new: int) -> None:
        """Have the other half find it."""
        self.shared.moved(self.space.layout, old, new)

    def create(self, vcpu: Vcpu) -> Steps[None]:
        """Make the roots of both tables. If memory had to be compacted for them, that takes its time."""
        yield vcpu.settle()
        (root,) = yield from self.take_tables(vcpu, 1)
        if cycles := self.shared.compacted(self.owner)["cycles"]:
            vcpu.owe("exit", cycles)
            self.exits["CREATE"] += 1
            self.exit_cycles["CREATE"] += cycles
        self._start(root)

    def install(self, root: int) -> None:
        """Make the roots of both tables before the clock starts, in the place of frame `root`.

        Raises
        ------
        VmStopped
            The host has no memory for them.
        """
        self.host.give_block(root, 0)
        self._start(self._table())

    def populate(self) -> None:
        """Back all guest memory before the clock starts.

        Raises
        ------
        VmStopped
            The host's memory does not suffice.
        """
        address, end = 0, self.at_start << PAGE_SHIFT
        while address < end:
            order = next(
                (
                    order
                    for order in (self.page_order, 9)
                    if 0 < order <= self.page_order
                    and address % (1 << (PAGE_SHIFT + order)) == 0
                    and address + (1 << (PAGE_SHIFT + order)) <= end
                ),
                0,
            )
            block = self.shared.host.take_block(self.owner, order, State.GUEST) if order else NO_FRAME
            if block != NO_FRAME:
                self._map_now(address, order // 9 + 1, block)
                address += 1 << (PAGE_SHIFT + order)
                continue
            stop = min(end, address // _TABLE_SPAN * _TABLE_SPAN + _TABLE_SPAN)
            wanted = stop - address >> PAGE_SHIFT
            frames = self.shared.host.take(self.owner, wanted, State.GUEST)
            for run in np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1):
                if len(run):
                    self._map_now(address, 1, int(run[0]), len(run))
                    address += len(run) << PAGE_SHIFT
            if len(frames) < wanted:
                raise VmStopped(Stop.NOT_BACKED)

    def back(self, vcpu: Vcpu, gpa: int, code: int = 0) -> Steps[int]:
        """Map the page of `gpa`, and those that stand with it in a chunk; return the cycles of what was done."""
        yield vcpu.settle()  # tables are the host's
        before = self.space.work.copy()
        cycles = yield from super().back(vcpu, gpa, code)
        return cycles + self._beyond(before)

    @property
    def remapped_order(self) -> int:
        """Small pages alone come back, for a KPT's table that has become empty stays."""
        return 0

    def enter_page(self, gfn: int, order: int, page: int, tables: list[Pair], *, only_read: bool) -> int:
        """Map the page `page` of 2**order frames around a guest frame in both tables; return what `missing` says."""
        address, level = gfn << PAGE_SHIFT & -(1 << (PAGE_SHIFT + order)), order // 9 + 1
        missing = self.space.missing(address, level)
        if 0 <= missing <= len(tables):
            self.space.map(address, level, page, tables[:missing], write=not only_read)
        return missing

    def take_tables(self, vcpu: Vcpu, count: int) -> Steps[list[Pair]]:
        """Return new tables from the host; the vCPU waits while it has no memory."""
        space, made = self.space, list[Pair]()
        while len(made) < count:
            made += [(yield from self.shared.wait(vcpu.wait, self.owner, space.layout, guest=True, work=space.work))]
        return made

    def return_tables(self, tables: list[Pair]) -> None:
        """Give tables back that were not needed."""
        for pair in tables:
            self.shared.give(self.space.layout, pair)

    def mapping_cycles(self, tables: int, order: int) -> int:
        """Return the cycles from the pages taken to the entry written; tables are paid for by their steps."""
        return super().mapping_cycles(0, order)

    def zap(self, first: int, count: int) -> Flush:
        """Clear the entries that map the frames, in both tables."""
        with self._unpaid():
            return Flush(nested=len(self.space.unmap(*self._whole(first, count)).values) > 0)

    def zap_each(self, gfns: Words) -> Flush:
        """Do the same to some frames, int64[n] ascending."""
        return zap_runs(self, gfns)

    def protect(self, first: int, count: int) -> Flush:
        """Take the right to write from the entries that map the frames, in both tables."""
        with self._unpaid():
            seen = self.space.protect(*self._whole(first, count), lambda pages: pages.values & ~WRITE)
        return Flush(nested=len(seen.values) > 0)

    def permit(self, gpa: int) -> None:
        """Give back the right to write that `protect` has taken, in both tables."""
        self.space.protect(*self._whole(gpa >> PAGE_SHIFT, 1), lambda pages: pages.values | WRITE)

    @contextmanager
    def _unpaid(self) -> Iterator[None]:
        """Leave what is done inside out of the VM's work: it is the host that does it, for reasons of its own."""
        work = self.space.work.copy()
        yield
        self.space.work.clear()
        self.space.work.update(work)

    def _whole(self, first: int, count: int) -> tuple[int, int]:
        """Return the first address of what maps the frames, and the one after it: large pages count as a whole."""
        memory, kpt, levels = self.memory, self.space.kpt, self.levels
        ends = []
        for gfn in (first, first + count - 1):
            _, level = find_entry(memory, kpt, levels, 1, gfn << PAGE_SHIFT)
            span = 1 << (3 + 9 * int(level))
            ends.append((gfn << PAGE_SHIFT) & -span)
        return ends[0], ends[1] + span

    def back_each(self, gfn: int, gfns: Words, pages: list[int]) -> None:
        """Back some frames of the chunk of `gfn` with as many pages."""
        for each, page in zip(gfns.tolist(), pages, strict=True):
            self.space.map(each << PAGE_SHIFT, 1, page, [])
            self.slot.arrived(each, page, 0)

    def _beyond(self, before: Counter[str]) -> int:
        """Return the cycles of what was done to the tables since `before`, a walk and a store of each update apart.

        Those are in the figures of a violation (`violation_walk`, `violation_entry`).
        """
        return price(beyond(self.space.work - before, self.levels), self.shared.costs)

    def _start(self, root: Pair) -> None:
        self.space.install(root)
        self.root = self.space.ept or self.space.kpt
        self.registers["nested_root"] = self.root

    def _table(self) -> Pair:
        space = self.space
        pair = self.shared.take(self.owner, space.layout, guest=True, work=space.work)
        if pair is None:
            raise VmStopped(Stop.NOT_BACKED)
        return pair

    def _map_now(self, address: int, level: int, first: int, count: int = 1) -> None:
        tables = [self._table() for _ in range(max(0, self.space.missing(address, level)))]
        self.space.map(address, level, first, tables, count=count)
        order = 9 * (level - 1)
        for number in range(0, count << order, 1 << order):
            self.slot.arrived((address >> PAGE_SHIFT) + number, first + number, order)
