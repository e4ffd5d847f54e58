"""Agile paging: shadow tables for what a guest leaves alone, nested walks for what it edits (Gandhi et al., ISCA 2016).

A walk begins in the shadow and may switch, once, to the guest's own tables. The monitor decides where, table by table:
all begin in the shadow, where stores trap; a table stored to `threshold` times in an interval, and what hangs below it,
goes over to nested walks, where they do not; and at the end of each interval tables go back that were not stored to
meanwhile. What is done to tables is in tables.py; the shadow itself is `Shadow`'s, emulated and write-protected.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.ledger import Ledger
from vmsim.contracts import NONE, Exit, LiveVm, Resume, Steps, Vcpu, Words, Worker, ensure
from vmsim.contracts.commit import SPILL, Collected
from vmsim.machine.formats import CODE_SHADOW, PAGE_SHIFT, SWITCH
from vmsim.machine.vcpu import Reason
from vmsim.machine.vm_spaces import VmSpaces
from vmsim.monitor.agile.check import table_on_way
from vmsim.monitor.agile.commit import AgileMode
from vmsim.monitor.agile.log import AgileLog
from vmsim.monitor.agile.mode import AgileSpec
from vmsim.monitor.agile.second import AgileEntries
from vmsim.monitor.features.nx_split import NxSplit
from vmsim.monitor.shadow.mode import ShadowSpec
from vmsim.monitor.shadow.nested import go_back, scan, unlink_nested
from vmsim.monitor.shadow.records import SPARE
from vmsim.monitor.shadow.roots import load_root
from vmsim.monitor.shadow.state import OWN, ShadowMode
from vmsim.monitor.tdp.monitor import Tdp
from vmsim.scenario.cpu import Cost
from vmsim.scenario.dirty_log import DirtyLogSpec
from vmsim.scenario.nx_split import NxSplitSpec

__all__ = ["Agile"]


class Agile(AgileEntries):
    """The tables of one VM under agile paging, and the exits that keep them; the guest's `Mmu`.

    Parameters
    ----------
    registers : record[n]
        The register files of its vCPUs, which `nested` has told where its tables are.
    nested : Tdp
        The nested tables.
    spec : AgileSpec
        When tables change sides.
    interval : int
        Cycles after which tables go back.
    limit : int
        Shadow pages kept.
    log : DirtyLogSpec, optional
        How it is learnt which pages are written to; None: it is not.

    The others are those of `Shadow`.
    """

    unseen = False  # it counts what the guest stores to any frame, as the nested tables' D flags tell it

    def __init__(
        self,
        memory: Words,
        registers: NDArray[Any],
        nested: Tdp,
        *,
        spec: AgileSpec,
        interval: int,
        limit: int,
        chunk: int,
        costs: Cost,
        spaces: VmSpaces,
        levels: int,
        log: DirtyLogSpec | None = None,
    ) -> None:
        shadowing = ShadowSpec(trap="emulate", limit=limit, write_flood=0)
        super().__init__(
            memory,
            registers,
            nested,
            spec=shadowing,
            chunk=chunk,
            entries=0,
            costs=costs,
            spaces=spaces,
            levels=levels,
            log=log,
        )
        self.reloads = len(registers) > 1 or self._pae  # four pointers may need more frames than are at hand
        self.host_pages = nested
        self.reasons = (*self.reasons, nested.reason)
        registers["switch"] = SWITCH
        self.state["threshold"] = self.threshold = spec.threshold
        self.only_clean = spec.back == "clean"
        self.interval = interval
        self._over = False
        self._agile: dict[int, tuple[ShadowMode, AgileMode]] = {}  # as of the last run, by vCPU
        self._roots = [OrderedDict[int, None]() for _ in self.of]  # whose pointers each has, the latest last
        self._room_for_roots = spec.root_cache

    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume]:
        """Handle a page fault, or a violation of a walk that has switched."""
        if exit.status == SPILL:
            yield from self.unstock(vcpu)
            with nullcontext() if exit.value else vcpu.first():  # of what its kernel has stored to map a page
                yield from self._follow(vcpu)
            self._close(vcpu, "PT_WRITE")
            return Resume.RETRY
        if exit.reason == Reason.VIOLATION:
            for feature in self.host_pages.features:
                if resume := (yield from feature.handle(vcpu, exit)):
                    return resume
            yield from self.violation(vcpu, exit.gpa, exit.code)
            return Resume.RETRY
        return (yield from super().handle(vcpu, exit))

    def fast(self, vcpu: Vcpu) -> AgileMode | None:  # type: ignore[override]
        """Return its state as compiled code handles exits with it."""
        mode, known = super().fast(vcpu), self._agile.get(vcpu.number)
        if mode is None or (known and known[0] is mode):
            return known[1] if mode and known else None
        made = AgileMode(*mode, vcpu.registers["cr3"], vcpu.registers["pdpte"][0])
        self._agile[vcpu.number] = mode, made
        return made

    def count(self, vcpu: Vcpu, done: Collected) -> None:
        """Count what is on a bill; pointers that the hardware has go with what it flushes."""
        if done.flush & OWN:
            self._forget_pointers()
        super().count(vcpu, done)

    def page_fault(
        self, vcpu: Vcpu, gva: int, code: int, times: int, status: int = NONE, value: int = 0, spent: int = 0
    ) -> Steps[bool]:
        """Handle a page fault: one past the switch goes to the guest's kernel at once, without an exit."""
        if code & CODE_SHADOW:
            made = yield from super().page_fault(vcpu, gva, code & ~CODE_SHADOW, times, status, value, spent)
            return made
        yield from self.deliver(vcpu, gva, code)
        return False

    def violation(self, vcpu: Vcpu, gpa: int, code: int = 0) -> Steps[None]:
        """Handle an EPT violation or NPF of a walk that has switched: back `gpa` and resume."""
        start = vcpu.now
        before, vcpu.kind = vcpu.kind, 0
        vcpu.spaces.exited()
        with vcpu.first():
            self._spend(vcpu, self._other)
            self._count(vcpu, self.host_pages.reason)
            self.host_pages.expect_own(gpa)
            self._spend(vcpu, self.costs.violation_walk)
            cycles = yield from self.host_pages.back(vcpu, gpa, code)
            self._spend(vcpu, cycles + self.host_pages.lock_wait(vcpu, cycles))
        self._close(vcpu, self.host_pages.reason)
        self.latency.note(vcpu, start, before)

    def write(self, vcpu: Vcpu, places: Words, values: Words) -> Steps[None]:
        """Store entries; those of shadowed tables trap, until their table goes over to nested walks."""
        yield from super().write(vcpu, places, values)
        self._work(vcpu)
        yield from self._follow(vcpu)
        self._close(vcpu, "PT_WRITE")

    def clear(self, vcpu: Vcpu, gpa: int, order: int, *, table: bool) -> Steps[None]:
        """Write over new frames; what was a nested table is none any more."""
        first, count = gpa >> PAGE_SHIFT, 1 << order
        if self.gfns["nested"][first : first + count].any() or self.gfns["writes"][first : first + count].any():
            go_back(self.of[vcpu.number], first, count)
            self._work(vcpu)
            yield from self._follow(vcpu)
            self._close(vcpu, "PT_WRITE")
        yield from super().clear(vcpu, gpa, order, table=table)

    def load_root(self, vcpu: Vcpu, root: int, space: int, *, keep: bool) -> Steps[None]:
        """MOV to CR3: an exit that finds the pointer for the new root, unless the hardware remembers it."""
        roots = self._roots[vcpu.number]
        known = root in roots
        if not known:
            vcpu.spaces.exited()
            self._spend(vcpu, self._other)
        self.cr3[vcpu.number] = root
        self.loading.add(vcpu.number)
        yield from self._load_pointers(vcpu, root)
        yield from self._point_to_root(vcpu)
        vcpu.spaces.load(root >> PAGE_SHIFT, keep=keep)
        self.loading.discard(vcpu.number)
        if not keep:
            self._told(vcpu.number)
        self._work(vcpu)
        self._count(
            vcpu, "CR3", 0 if known else 1
        )  # where the root is known, what is left to do is done without an exit
        if self._room_for_roots:
            roots[root] = None
            roots.move_to_end(root)
            if len(roots) > self._room_for_roots:
                roots.popitem(last=False)

    def invalidate(self, vcpu: Vcpu, first: int, last: int, *, order: int = 0) -> Steps[None]:
        """INVLPG for each page of a range: no exits, for the shadow is in step with every store that trapped."""
        vcpu.spaces.invalidate(first, last)
        self._told(vcpu.number)
        return
        yield

    def release(self, vcpu: Vcpu, root: int, space: int) -> Steps[None]:
        """Forget the pointer of a dead address space."""
        for roots in self._roots:
            roots.pop(root, None)
        return
        yield

    @property
    def workers(self) -> Sequence[Worker]:
        """Itself, who ends the intervals, and the log, which is read now and then."""
        return (self, *super().workers)

    def finish(self, vcpu: Vcpu) -> None:
        """End no more intervals: the VM's workload is over."""
        self._over = True
        super().finish(vcpu)

    def make_log(self, spec: DirtyLogSpec) -> AgileLog:
        """Return the log of what the VM writes to."""
        return AgileLog(self, spec, self._flush_both, self.tables.dirty)

    def forbid_execution(self, spec: NxSplitSpec, flush: Callable[[], None] | None = None) -> None:
        """Have large pages not be executable, in the shadow and in the nested tables."""
        super().forbid_execution(spec, flush or self._flush_both)
        tables = self.host_pages
        tables.exits, tables.exit_cycles = self.exits, self.exit_cycles
        nested = NxSplit(tables, spec, flush or self._flush_both)
        tables.add(nested)
        self.add(nested)

    def _flush_both(self) -> None:
        self._forget_pointers()
        self.spaces.flush_all()
        self.spaces.flush_nested()

    def run(self, vm: LiveVm) -> Steps[None]:
        """End each interval, from the start of the clock on; tables go back to the shadow."""
        while True:
            yield vm.env.background(self.interval - vm.env.cycle % self.interval)
            if self._over:
                return
            self.end_interval(vm.vcpus[0])

    def end_interval(self, vcpu: Vcpu) -> None:
        """Have tables go back to the shadow: an exit of the vCPU, if it runs, and work that it pays for.

        Without a frame for the shadow of the root, all stays as it is for an interval more.
        """
        if not self._has_frame_for_root():
            return
        flushing, due = bool(self._flush[0]), int(self._due.sum())  # of exits that are under way
        with self.by_host():
            looked = int(scan(self.of[0], self.only_clean))
            self._follow_roots()
            cycles = int(self._due.sum()) - due + looked * self.costs.guest_walk_level
            flush = bool(self._flush[0]) and not flushing
        if flush:
            self._forget_pointers()
            self._forget(vcpu, own=True, others=True)
            cycles += vcpu.kick_others() if len(self.of) > 1 else 0
        if not looked:
            return
        self.exits["AGILE_SCAN"] += int(vcpu.running)
        if vcpu.running:
            vcpu.spaces.exited()
            cycles += self._other
        self.exit_cycles["AGILE_SCAN"] += cycles
        vcpu.impose(cycles)

    def _has_frame_for_root(self) -> bool:
        """Whether there is a frame at hand for the shadow of each root; where there is none, the pool is asked."""
        if int(self._stocked[0]) < self._most_roots:
            self._put(0, self.pool.take(self._most_roots - int(self._stocked[0])))
        return int(self._stocked[0]) >= self._most_roots

    def rehearse(self) -> None:
        """Compile, or load from the cache, the kernels that a short run does not need."""
        super().rehearse()
        go_back(self.of[0], 0, 0)
        unlink_nested(self.of[0], 0, 0)
        scan(self.of[0], False)

    def table_on_way(self, table: int, level: int, wanted: int, gva: int) -> int:
        """Return the hpa of a table in the shadow, or past the switch of one of the guest's own."""
        return table_on_way(self.memory, self.memory_root, table, level, wanted, gva)

    def register(self, ledger: Ledger) -> None:
        """Say what it counts, tables that went over to nested walks and came back among it."""
        super().register(ledger)
        ledger.counters("shadow", lambda: {name: int(self.state[name][0]) for name in ("to_nested", "to_shadow")})

    def _stores_until_free(self) -> int:
        """Return how many stores to a table trap until it goes over to nested walks."""
        return self.threshold

    def _flush_tlbs(self, vcpu: Vcpu) -> None:
        """Flush what the kernels took away; pointers that the hardware has go with it."""
        if self._flush[0]:
            self._forget_pointers()
        super()._flush_tlbs(vcpu)

    def stale(self, cpu: int) -> bool:
        """Whether a vCPU's TLB may hold what the guest has taken away, or it has still to look for its root."""
        return super().stale(cpu) or not self._points_to_root(cpu)

    def may_enter(self, vcpu: Vcpu) -> bool:
        """Whether CR3 leads to where the root is walked now: another vCPU's exit may have changed that."""
        return self._points_to_root(vcpu.number)

    def reload(self, vcpu: Vcpu) -> Steps[None]:
        """Look for the root anew before the guest is entered (arch/x86/kvm/mmu.h, `kvm_mmu_reload`)."""
        yield from self._follow(vcpu)
        self._close(vcpu, "PT_WRITE")

    def _follow(self, vcpu: Vcpu) -> Steps[None]:
        """Point CR3 anew where the current root has changed sides."""
        if not self._points_to_root(vcpu.number):
            yield from self._point_to_root(vcpu)
            self._work(vcpu)

    def _point_to_root(self, vcpu: Vcpu) -> Steps[None]:
        """Set CR3, or the PDPTEs: to the root's shadow, or to the guest's own table and SWITCH."""
        gfn = self.cr3[vcpu.number] >> PAGE_SHIFT
        while (
            hpa := int(load_root(self.of[vcpu.number], gfn, SPARE))
        ) < 0:  # while it waits, the root may change sides
            self._flush_tlbs(vcpu)
            if hpa == -1:
                yield from self._restock(vcpu)
            for each, *_ in self._roots_of(vcpu.number) if hpa == -2 else ():
                yield from ensure(vcpu, self, np.array([each]))
        self._point(vcpu.number, hpa)
