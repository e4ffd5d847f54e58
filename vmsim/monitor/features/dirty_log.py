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

from vmsim.contracts import Alarmed, Steps, Vcpu
from vmsim.frames.buddy import State, use
from vmsim.machine.formats import CODE_LOG_FULL, CODE_PRESENT, ENTRIES, PAGE_SHIFT, WRITE
from vmsim.monitor.tdp.monitor import Tdp
from vmsim.record.outcome import DirtyRound
from vmsim.scenario.dirty_log import DirtyLogSpec
from vmsim.tables.dirty import (
    NO_LARGE,
    PML_ENTRIES,
    Store,
    clean,
    collapse,
    gather,
    large_page,
    mend,
    permit_one,
    split,
    store_at,
)

__all__ = ["LoggedTdp"]


NEVER = 1 << 62
_LOG_FULL, _PROTECTED, _READ = "PML_FULL", "WRITE_PROTECT", "DIRTY_LOG"


class LoggedTdp(Tdp):
    """Nested tables of a VM whose writes are logged.

    Parameters are as of `Tdp`, with what is logged how and who makes the processors forget nested translations.

    Attributes
    ----------
    dirty : bool[pages]
        By gfn: written to since the log was last read.
    ever : bool[pages]
        By gfn: written to since logging began.
    rounds : list of DirtyRound
        Each reading of the log.
    """

    logs = True

    def __init__(self, *arguments: Any, spec: DirtyLogSpec, flush: Callable[[], None], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.serves = False
        self.spec = spec
        self.dirty = np.zeros(self.pages, bool)
        self.ever = np.zeros(self.pages, bool)
        self.rounds: list[DirtyRound] = []
        self.splits = self.collapses = 0
        self.logging = False
        self._flush = flush
        self._started = 0
        self._large = self.page_order
        self._gone = WRITE if spec.method == "write-protect" else self.form.dirty
        for reason in (_PROTECTED, _LOG_FULL, _READ):
            self.exits[reason] = self.exit_cycles[reason] = 0

    def begin(self, vcpu: Alarmed) -> Steps[None]:
        """Start logging; return once every large page is split, if that is to be so from the start."""
        self.logging = True
        self.page_order = 0
        self._started = vcpu.now
        if self.spec.split == "eager":
            end, address = self.pages << PAGE_SHIFT, 0
            while (address := int(large_page(self.memory, self.root, self.levels, address, end))) != NO_LARGE:
                self._pay(vcpu, _READ, (yield from self._split(vcpu, address)))
        mend(self.memory, self.root, self.levels, self.pages, self._gone, WRITE, 0)
        if self.spec.method == "pml":
            self._registers["pml"] = 1
            self._registers["pml_index"] = PML_ENTRIES - 1
        self._flush()
        vcpu.alarm = vcpu.now + self.spec.every

    def violation(self, vcpu: Vcpu, gpa: int, code: int = 0) -> Steps[None]:
        """Handle a violation: of a page that is protected, of a full log, or of one that lacks a page."""
        self._drain(vcpu)
        if code & CODE_LOG_FULL:
            self._exit(vcpu, _LOG_FULL, 0)
        elif code & CODE_PRESENT:
            start = vcpu.now
            cycles = yield from self._unprotect(vcpu, gpa)
            self._exit(vcpu, _PROTECTED, self.costs.violation_walk + cycles)
            self.latency[vcpu.now - start] += 1
        else:
            yield from super().violation(vcpu, gpa, code)

    def wrote(self, vcpu: Vcpu, gfns: NDArray[np.int64]) -> Steps[None]:
        """Take note of stores by the guest's kernel, which no walk is made for: what is protected exits."""
        for gfn in dict.fromkeys(gfns.tolist()):
            while (met := store_at(self.memory, self._registers, gfn << PAGE_SHIFT)) != Store.DONE:
                code = {Store.UNBACKED: 0, Store.PROTECTED: CODE_PRESENT, Store.FULL: CODE_LOG_FULL}[Store(met)]
                yield from self.violation(vcpu, gfn << PAGE_SHIFT, code)

    def rang(self, vcpu: Alarmed) -> Steps[None]:
        """Read the log, or end logging: it is time."""
        self.read(vcpu, late=vcpu.now - vcpu.alarm)
        vcpu.alarm = vcpu.now + self.spec.every
        if self.spec.stop and vcpu.now - self._started >= self.spec.stop:
            yield vcpu.settle()  # tables go back to the pool
            self.end(vcpu)

    def read(self, vcpu: Vcpu, *, late: int = 0) -> None:
        """Read the log: note what is dirty, and make it clean. The host does it on a core of its own.

        The vCPU pays an exit, for its processor has to forget the translations that let it write.

        Parameters
        ----------
        late : int, optional
            Cycles since it was due.
        """
        host = 0
        self._drain(vcpu)
        if self.spec.method == "ad-scan":
            seen = gather(self.memory, self.root, self.levels, self.pages, self.form.dirty, self.dirty)
            host += int(seen) * self.costs.log_scan
        pages = int(clean(self.memory, self.root, self.levels, self.dirty, self._gone))
        host += pages * self.costs.log_page
        self.ever |= self.dirty
        self.dirty[:] = False
        self._flush()
        self._exit(vcpu, _READ, 0)
        self.rounds.append(DirtyRound(vcpu.now, pages, host, late))

    def end(self, vcpu: Alarmed) -> None:
        """Stop logging: pages may be written to, and what was split is made large again (KVM's recover_huge_pages)."""
        self.logging = False
        self._registers["pml"] = 0
        vcpu.alarm = NEVER
        self.page_order = self._large
        mend(self.memory, self.root, self.levels, self.pages, 0, 0, WRITE)
        for level in range(2, self.page_order // 9 + 2):
            freed = np.empty(-(-self.pages // ENTRIES), np.int64)
            count = int(collapse(self.memory, self.host.frames, self.root, self.levels, self.pages, level, freed))
            use(self.host.frames, freed[:count], int(State.POOL))
            self.pool.put(freed[:count].tolist())
            self.collapses += count
        self._flush()

    def figures(self) -> dict[str, int]:
        """Return what was counted besides the exits."""
        return {
            "dirty_rounds": len(self.rounds),
            "dirty_pages": sum(each.pages for each in self.rounds),
            "dirty_host_cycles": sum(each.cycles for each in self.rounds),
            "splits": self.splits,
            "collapses": self.collapses,
        }

    def _mapped(self, gfn: int) -> None:
        if self.logging:
            self.dirty[gfn] = True

    def _unprotect(self, vcpu: Vcpu, gpa: int) -> Steps[int]:
        """Let a page be written to, and split what is too large to tell of it; return the cycles."""
        cycles = self.costs.violation_entry
        while int(large_page(self.memory, self.root, self.levels, gpa, gpa + 1)) != NO_LARGE:
            cycles += yield from self._split(vcpu, gpa)
        if self.spec.method == "write-protect":
            permit_one(self.memory, self.root, self.levels, gpa)
            self.dirty[gpa >> PAGE_SHIFT] = True
        return cycles

    def _split(self, vcpu: Vcpu, gpa: int) -> Steps[int]:
        """Put a table in the place of the large page around `gpa`; return the cycles."""
        yield vcpu.settle()
        (table,) = yield from self.take(vcpu, 1)
        split(self.memory, self.host.frames, self.root, self.levels, gpa, table, self.form.table, self._gone)
        self.splits += 1
        self._flush()
        return self.costs.violation_pool + self.costs.table_page + ENTRIES * self.costs.entry_edit

    def _drain(self, vcpu: Vcpu) -> None:
        """Empty the log of the processor: the monitor does it at every exit."""
        index = int(self._registers["pml_index"][0])
        noted = self._registers["pml_log"][0, index + 1 :]
        if self._registers["pml"][0] and len(noted):
            self.dirty[noted >> PAGE_SHIFT] = True
            self._registers["pml_index"] = PML_ENTRIES - 1
            self._pay(vcpu, _LOG_FULL, len(noted) * self.costs.log_entry)

    def _exit(self, vcpu: Vcpu, reason: str, cycles: int) -> None:
        self.exited()
        self.exits[reason] += 1
        self._pay(vcpu, reason, self.costs.vm_exit + cycles + self.costs.violation_resume)

    def _pay(self, vcpu: Vcpu, reason: str, cycles: int) -> None:
        vcpu.owe("exit", cycles)
        self.exit_cycles[reason] += cycles
