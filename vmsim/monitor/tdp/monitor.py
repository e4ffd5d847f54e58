"""Two-dimensional paging: EPT or NPT (KVM's tdp MMU).

An EPT violation or NPF is handled step by step: exit, find the gfn's place in the nested tables, take pages from the
pool (the vCPU is suspended while there are none), write the entry, note it in the reverse map, resume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Exit, Host, MemorySlot, Pool, Resume, Steps, Stop, Vcpu, VmStopped
from vmsim.contracts.commit import make_bill
from vmsim.frames.buddy import use
from vmsim.frames.records import State
from vmsim.machine.formats import CODE_WRITE, PAGE_SHIFT, PRESENT, NestedFormat
from vmsim.machine.layout import set_nested
from vmsim.machine.memory import clear_frame
from vmsim.machine.vcpu import Reason
from vmsim.monitor.backing.commit import NestedMode
from vmsim.monitor.backing.touching import Touching
from vmsim.monitor.mmu_lock import MmuLock
from vmsim.monitor.tdp.backing import NestedBacking
from vmsim.monitor.tdp.commit import VIOLATION
from vmsim.scenario.cpu import Cost
from vmsim.tables.backing import IDENTITY, fill_backing
from vmsim.tables.edit import populate

__all__ = ["Tdp"]

_GUEST_FAULT, _VIOLATION = int(Reason.GUEST_FAULT), int(Reason.VIOLATION)


class Tdp(NestedBacking, Touching):
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
        super().__init__(
            memory,
            host,
            pool,
            slot,
            owner=owner,
            page_order=page_order,
            costs=costs,
            chunk=chunk,
            lock=lock,
            entry=costs.violation_entry + costs.violation_rmap,
        )
        self.form = form
        self._end = self.pages << PAGE_SHIFT
        self.levels = levels
        self.large, self.withheld = form.page, 0
        self.features = []
        self.reason = reason
        self.exits[reason] = self.exit_cycles[reason] = 0
        self.registers = registers
        self._before = costs.vm_exit + costs.violation_walk
        self._resume = costs.violation_resume
        self.exited = exited or _keep
        self.reasons = (reason,)
        self.bills = make_bill(len(registers))
        for name, value in (
            ("page", form.page),
            ("table", form.table),
            ("before", self._before),
            ("resume", self._resume),
            ("reason", VIOLATION),
            ("locks", 1),
            ("most", levels),
        ):
            self._nested[name] = value
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
        reached, end = 0, self.at_start << PAGE_SHIFT
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
                    self.large if order else self.form.page,
                    tables,
                    page,
                )
                if order and reached < whole:  # no block of that order is left for any of the others
                    self.host.failures[self.owner, order] += (whole - reached) >> (PAGE_SHIFT + order)
        fill_backing(self.memory, self.backing, self.host.frames, self.root, self.levels)
        if reached < end:
            raise VmStopped(Stop.NOT_BACKED)

    def memory_pages(self, vcpu: Vcpu) -> NestedMode | None:
        """Return the pages of guest memory as compiled code takes them: as it handles violations."""
        return self.fast(vcpu)

    def touch_one(self, vcpu: Vcpu, gfn: int) -> Steps[None]:
        """Handle the violation of one frame, by whichever feature or itself."""
        yield from self.handle(vcpu, Exit(_VIOLATION, 0, gfn << PAGE_SHIFT, CODE_WRITE, write=True))

    def back_one(self, vcpu: Vcpu, gfn: int) -> Steps[int]:
        """Back a frame in an exit that another counts, and map it; return the cycles of that."""
        cycles = yield from self.back(vcpu, gfn << PAGE_SHIFT, CODE_WRITE)
        cycles += self.lock_wait(vcpu, cycles)
        vcpu.owe("exit", cycles)
        return cycles

    def lacking(self, gfn: int, limit: int) -> int:
        """Return the first of the guest frames [gfn, limit) that a write finds nowhere, or `limit`."""
        if not self.features:
            return super().lacking(gfn, limit)
        return next((each for each in range(gfn, limit) if not self.backed(each)), limit)

    def backed(self, gfn: int) -> bool:
        """Whether a guest frame has a host frame of its own, and an entry that maps it."""
        return bool(self.backing[gfn] & PRESENT) and not any(feature.unmaps(gfn) for feature in self.features)

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
        before, vcpu.kind = vcpu.kind, 0
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
        self.latency.note(vcpu, start, before)

    def io_exit(self, vcpu: Vcpu) -> None:
        """Leave the guest because it has told a device to work (SDM vol. 3C, exit reason 30)."""
        self.exited(vcpu)
        self.exits["IO"] += 1
        cycles = self.costs.vm_exit + self.costs.violation_resume
        self.exit_cycles["IO"] += cycles
        vcpu.owe("exit", cycles)

    def fast(self, vcpu: Vcpu) -> NestedMode | None:
        """Return its state as compiled code handles violations with it."""
        return self.nested if self.compiled else None


def _keep(vcpu: Vcpu) -> None:
    """Forget nothing at a VM exit: the VM has a tag."""
