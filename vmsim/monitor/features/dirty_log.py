"""Dirty logging under EPT and NPT: which guest frames were written to since the log was last read.

Three methods find the same pages at other costs, two of them KVM's (virt/kvm/kvm_main.c, arch/x86/kvm/mmu/tdp_mmu.c,
arch/x86/kvm/vmx/vmx.c), which never scans. write-protect: entries are read-only, and the first write to a page exits.
ad-scan: dirty flags are cleared, and looked for when the log is read. pml: dirty flags are cleared, and the processor
notes each page whose flag it sets in a log of 512 entries; a full log exits, and every other exit empties it. While a
VM is logged new pages are small, and dirty from the start; large pages that are there are write-protected, and split by
the first write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import Exit, Mmu, Resume, Steps, Vcpu, Words
from vmsim.frames.buddy import use
from vmsim.frames.records import State
from vmsim.machine.formats import CODE_FETCH, CODE_LOG_FULL, CODE_PRESENT, CODE_WRITE, ENTRIES, PAGE_SHIFT, WRITE
from vmsim.machine.vcpu import Reason
from vmsim.monitor.features.base import Nested
from vmsim.monitor.features.log_reader import PROTECTED, READ, LogReader
from vmsim.scenario.dirty_log import DirtyLogSpec
from vmsim.tables.backing import shared_frame
from vmsim.tables.dirty import (
    NO_LARGE,
    PML_ENTRIES,
    Store,
    clean,
    collapse,
    gather,
    large_page,
    permit_one,
    store_at,
    update_leaves,
)

__all__ = ["DirtyLog", "LoggedMmu"]


_LOG_FULL = "PML_FULL"
_VIOLATION = int(Reason.VIOLATION)


class DirtyLog(LogReader):
    """The log of what a VM writes to.

    Parameters
    ----------
    tdp : Nested
        The monitor.
    spec : DirtyLogSpec
        What is logged how.
    flush : callable
        Makes the processors forget nested translations.
    dirty : bool[pages], optional
        By gfn: written to, where others note what was written to besides; they read it, too.
    """

    tdp: Nested

    def __init__(
        self, tdp: Nested, spec: DirtyLogSpec, flush: Callable[[], None], dirty: NDArray[np.bool_] | None = None
    ) -> None:
        compiled = tdp.compiled
        super().__init__(tdp, spec, flush, np.zeros(tdp.pages, bool) if dirty is None else dirty, _LOG_FULL)
        self.tdp = tdp
        self._large = self.tdp.page_order
        self._cleared = WRITE if spec.method == "write-protect" else self.tdp.form.dirty
        tdp.compiled = compiled and not self._large and spec.method != "pml"  # whose log each exit empties
        costs = self.costs
        each = costs.vm_exit + costs.violation_walk + costs.violation_entry + costs.violation_resume
        tdp.watch(self.dirty, PROTECTED, each if spec.method == "write-protect" else 0)

    def guest_mmu(self, hardware: Mmu) -> Mmu:
        """Return the hardware's MMU, told of each store before it is made."""
        return LoggedMmu(hardware, self.wrote)

    def begin(self, vcpu: Vcpu) -> Steps[None]:
        """Start logging; return once every large page is split, if that is to be so from the start."""
        self.logging = True
        self.tdp.log_writes(on=True)
        self.tdp.page_order = 0
        self.tdp.withheld = self._cleared
        self._started = vcpu.now
        if self.spec.split == "eager":
            end, address = self.tdp.pages << PAGE_SHIFT, 0
            while (address := int(large_page(*self._tables, address, end))) != NO_LARGE:
                self._pay(vcpu, READ, (yield from self._split(vcpu, address)))
        update_leaves(*self._tables, self.tdp.pages, self._cleared, WRITE, 0)
        if self.spec.method == "pml":
            self.tdp.registers["pml"] = 1
            self.tdp.registers["pml_index"] = PML_ENTRIES - 1
        self._flush()

    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume | None]:
        """Handle a violation of a page that is protected, or of a full log; every exit empties the processor's log."""
        vcpu.owe("exit", self._drain(vcpu.registers))
        if exit.code & CODE_LOG_FULL:
            self._exit(vcpu, _LOG_FULL, 0)
        elif exit.code & CODE_PRESENT and not exit.code & CODE_FETCH and not self._is_shared(exit.gpa):
            start = vcpu.now
            before, vcpu.kind = vcpu.kind, 0
            cycles = yield from self._unprotect(vcpu, exit.gpa)
            self._exit(vcpu, PROTECTED, self.costs.violation_walk + cycles)
            self.tdp.latency.note(vcpu, start, before)
        else:
            return None
        return Resume.RETRY

    def wrote(self, vcpu: Vcpu, gfns: NDArray[np.int64]) -> Steps[None]:
        """Take note of stores by the guest's kernel, which no walk is made for: what is protected exits."""
        for gfn in dict.fromkeys(gfns.tolist()):
            while (met := store_at(self.tdp.memory, vcpu.registers, gfn << PAGE_SHIFT)) != Store.DONE:
                code = {Store.UNBACKED: 0, Store.PROTECTED: CODE_PRESENT, Store.FULL: CODE_LOG_FULL}[Store(met)]
                at = gfn << PAGE_SHIFT
                yield from self.tdp.handle(vcpu, Exit(_VIOLATION, 0, at, code | CODE_WRITE, write=True))

    def finish(self, vcpu: Vcpu) -> None:
        """Read the log a last time, those of vCPUs that have ended before among it."""
        if self.logging:
            for number in range(len(self.tdp.registers)):
                if number != vcpu.number:
                    vcpu.impose(self._drain(self.tdp.registers[number : number + 1]))
        super().finish(vcpu)

    def end(self) -> None:
        """Stop logging: pages may be written to, and what was split is made large again (KVM's recover_huge_pages)."""
        self.logging = False
        self.tdp.log_writes(on=False)
        self.tdp.registers["pml"] = 0
        self.tdp.page_order = self._large
        self.tdp.withheld = 0
        update_leaves(*self._tables, self.tdp.pages, 0, 0, WRITE)
        self.tdp.slot.protect_shared()
        (memory, root, levels), frames = self._tables, self.tdp.host.frames
        small, large = self.tdp.form.page, self.tdp.large
        for level in range(2, self.tdp.page_order // 9 + 2):
            freed = np.empty(-(-self.tdp.pages // ENTRIES), np.int64)
            bits = small & ~large, large & ~small
            count = int(collapse(memory, frames, root, levels, self.tdp.pages, level, freed, *bits))
            use(frames, freed[:count], int(State.POOL))
            self.tdp.pool.put(freed[:count].tolist())
            self.collapses += count
        self._flush()

    def note(self, gfn: int) -> None:
        """Take a frame that is new for written to: it is mapped writable."""
        if self.logging:
            self.dirty[gfn] = True

    @property
    def _tables(self) -> tuple[Words, int, int]:
        """Memory, and the root and levels of the nested tables in it."""
        return self.tdp.memory, self.tdp.root, self.tdp.levels

    def _is_shared(self, gpa: int) -> bool:
        """Whether others share a page: a write is then its copy's, which is new, and not this log's."""
        return gpa < self.tdp.pages << PAGE_SHIFT and shared_frame(self.tdp.backing, gpa >> PAGE_SHIFT) is not None

    def _look(self) -> int:
        if self.spec.method != "ad-scan":
            return 0
        seen = gather(*self._tables, self.tdp.pages, self.tdp.form.dirty, self.dirty)
        return int(seen) * self.costs.log_scan

    def _clean(self) -> int:
        return int(clean(*self._tables, self.dirty, self._cleared))

    def _unprotect(self, vcpu: Vcpu, gpa: int) -> Steps[int]:
        """Let a page be written to, and split what is too large to tell of it; return the cycles."""
        cycles, whole = self.costs.violation_entry, True
        while self.logging and int(large_page(*self._tables, gpa, gpa + 1)) != NO_LARGE:
            cycles += yield from self._split(vcpu, gpa)
            whole = False
        if not whole:
            cycles += self.tdp.lock.fault(vcpu.now + self.costs.violation_walk, cycles, vcpu.number)
        if self.spec.method == "write-protect":
            permit_one(*self._tables, gpa)
            self.dirty[gpa >> PAGE_SHIFT] = True
        return cycles

    def _split(self, vcpu: Vcpu, gpa: int) -> Steps[int]:
        """Put a table in the place of the large page around `gpa`; return the cycles."""
        (table,) = yield from self.tdp.take(vcpu, 1)
        if not self.logging or int(large_page(*self._tables, gpa, gpa + 1)) == NO_LARGE:  # since it has waited
            self.tdp.pool.put([table])
            return self.costs.violation_pool
        alone = self.spec.split == "one"
        self.tdp.split(gpa, table, alone=alone)
        self.splits += 1
        self._flush()
        return vcpu.kick_others() + self.tdp.each_table + (1 if alone else ENTRIES) * self.costs.entry_edit

    def _drain(self, registers: NDArray[Any]) -> int:
        """Empty the log of a vCPU's processor, as the monitor does at every exit; return the cycles."""
        index = int(registers["pml_index"][0])
        noted = registers["pml_log"][0, index + 1 :]
        if not registers["pml"][0] or not len(noted):
            return 0
        self.dirty[noted >> PAGE_SHIFT] = True
        registers["pml_index"] = PML_ENTRIES - 1
        cycles = len(noted) * self.costs.log_entry
        self.tdp.exit_cycles[_LOG_FULL] += cycles
        return cycles


class LoggedMmu:
    """The processor's own MMU where a monitor logs writes: a store may find its frame protected, and exit.

    Parameters
    ----------
    hardware : Mmu
        That of the processor.
    wrote : callable
        Told of the gfns that the kernel stores to, before it does.
    """

    traps = True
    loads_trap = False
    unseen = False
    known = False
    broadcasts = False

    def __init__(self, hardware: Mmu, wrote: Callable[[Vcpu, Words], Steps[None]]) -> None:
        self.hardware = hardware
        self.wrote = wrote
        self.read, self.load_root = hardware.read, hardware.load_root
        self.invalidate, self.flush, self.release = hardware.invalidate, hardware.flush, hardware.release

    @property
    def backing(self) -> Words:
        """Where guest memory lies."""
        return self.hardware.backing

    def write(self, vcpu: Vcpu, places: Words, values: Words) -> Steps[None]:
        """Store entries."""
        yield from self.wrote(vcpu, places >> PAGE_SHIFT)
        yield from self.hardware.write(vcpu, places, values)

    def took(self) -> None:
        """Do nothing: each store is told of by itself."""

    def clear(self, vcpu: Vcpu, gpa: int, order: int, *, table: bool) -> Steps[None]:
        """Write over frames."""
        yield from self.wrote(vcpu, (gpa >> PAGE_SHIFT) + np.arange(1 << order))
        yield from self.hardware.clear(vcpu, gpa, order, table=table)
