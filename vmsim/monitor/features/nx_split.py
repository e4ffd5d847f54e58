"""Large EPT pages that are not executable, and are split where code is fetched: the `nx_huge_pages` of KVM.

The mitigation of iTLB multihit (CVE-2018-12207), after Linux: arch/x86/kvm/mmu/mmu.c (`disallowed_hugepage_adjust`,
`kvm_recover_nx_huge_pages`) and tdp_mmu.c (`tdp_mmu_split_huge_page`), Documentation/admin-guide/hw-vuln/multihit.rst.
A fetch from a large page violates, and the page is split into executable ones of 4 KiB; the host's page behind them
stays whole. Now and then the tables made longest ago are cleared: the next access maps the large page again, or if it
is a fetch, the small page that it wants alone, and others beside it as they are touched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vmsim.contracts import Alarmed, Steps, Vcpu
from vmsim.frames.buddy import State, use
from vmsim.machine.formats import CODE_FETCH, CODE_PRESENT, ENTRIES, EPT_EXECUTE, FRAME, PAGE_SHIFT
from vmsim.machine.memory import find_entry, read_word, write_word
from vmsim.monitor.tdp.monitor import Tdp
from vmsim.scenario.nx_split import NxSplitSpec
from vmsim.tables.backing import HOST
from vmsim.tables.dirty import split
from vmsim.tables.edit import MAPPED, map_page, map_pages, missing_tables, translate

__all__ = ["NxSplitTdp"]


_REGION = 21  # shift of the gpas that a page of 2 MiB maps
_SPLIT, _RECOVERY = "NX_SPLIT", "NX_RECOVERY"


class NxSplitTdp(Tdp):
    """Nested tables of a VM whose pages of 2 MiB are not executable.

    Parameters are as of `Tdp`, with when pages are recovered and who makes the processors forget nested translations.

    Attributes
    ----------
    blocks : dict
        First frame of the host's large page by region (gpa >> 21), where small pages map it, or for now nothing does.
    tables : dict
        Those of the regions that small pages map, and their table's frame; the first was made longest ago.
    """

    def __init__(self, *arguments: Any, spec: NxSplitSpec, flush: Callable[[], None], **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.spec = spec
        self.large_bits = self.form.page & ~EPT_EXECUTE
        self.blocks: dict[int, int] = {}
        self.tables: dict[int, int] = {}
        self._flush = flush
        self._fetched = False
        for reason in (_SPLIT, _RECOVERY):
            self.exits[reason] = self.exit_cycles[reason] = 0

    @property
    def frames_held(self) -> int:
        """Frames of the host's large pages that nothing maps."""
        mapped = sum(np.count_nonzero(self._entries(table)) for table in self.tables.values())
        return len(self.blocks) * ENTRIES - int(mapped)

    def begin(self, vcpu: Alarmed) -> Steps[None]:
        """Set the clock of the first recovery."""
        vcpu.alarm = vcpu.now + self.spec.period
        return
        yield

    def backed(self, gfn: int) -> bool:
        """Whether the nested tables map a guest frame: what was recovered has a host frame and no entry."""
        return int(missing_tables(self.memory, self.root, self.levels, 1, HOST, gfn << PAGE_SHIFT)) == MAPPED

    def violation(self, vcpu: Vcpu, gpa: int, code: int = 0) -> Steps[None]:
        """Handle a violation: of a fetch from a large page, or of a page that is not there."""
        self._fetched = code & CODE_FETCH != 0
        if not (self._fetched and code & CODE_PRESENT):
            yield from super().violation(vcpu, gpa, code)
            return
        start = vcpu.now
        yield vcpu.settle()
        (table,) = yield from self.take(vcpu, 1)
        region = gpa >> _REGION
        self.blocks[region] = int(translate(self.memory, self.root, self.levels, region << _REGION)) >> PAGE_SHIFT
        split(self.memory, self.host.frames, self.root, self.levels, gpa, table, self.form.table, 0)
        self._entries(table)[:] |= EPT_EXECUTE
        self.tables[region] = table
        edits = self.costs.violation_pool + self.costs.table_page + ENTRIES * self.costs.entry_edit
        self._exit(vcpu, _SPLIT, self.costs.violation_walk + edits)
        self.latency[vcpu.now - start] += 1

    def back(self, vcpu: Vcpu, gpa: int) -> Steps[int]:
        """Map the page of `gpa`: a small one to fetch from, or where there are small ones; else a large one."""
        region = gpa >> _REGION
        block = self.blocks.get(region)
        if block is None:  # new to the host; a fetch violates now, and once more when the page is large
            return (yield from super().back(vcpu, gpa))
        yield vcpu.settle()
        if self._fetched or region in self.tables:
            level, page, bits = 1, block + (gpa >> PAGE_SHIFT) % ENTRIES, self.form.page
        else:
            level, page, bits = 2, block, self.large_bits
            del self.blocks[region]
        place = self.root, self.levels, level, HOST, gpa & -(1 << (3 + 9 * level))
        missing = int(map_page(self.memory, self.host.frames, *place, page, bits))
        if missing > 0:
            made = yield from self.take(vcpu, missing)
            rest = np.array([page]), np.array(made), self.form.table, bits
            map_pages(self.memory, self.host.frames, *place, *rest)
            self.tables[region] = self._table_of(region)
        return self._mapping_more(missing, 0)

    def rang(self, vcpu: Alarmed) -> Steps[None]:
        """Recover some of the pages that were split: it is time. The host does it on a core of its own.

        The vCPU pays an exit, for its processor has to forget the translations.
        """
        vcpu.alarm = vcpu.now + self.spec.period
        count = -(-len(self.tables) // self.spec.ratio) if self.spec.ratio else 0
        if count:
            yield vcpu.settle()  # the tables go back to the pool
        for region in list(self.tables)[:count]:
            self._clear(region)
        if count:
            self._flush()
            self._exit(vcpu, _RECOVERY, 0)

    def _frame_of(self, gfn: int) -> int:
        """Return the host's frame: for now nothing may map it where small pages were recovered."""
        block = self.blocks.get(gfn >> (_REGION - PAGE_SHIFT))
        return super()._frame_of(gfn) if block is None else block + gfn % ENTRIES

    def _clear(self, region: int) -> None:
        """Take away the table of a region; what touches it next finds the host's page whole."""
        table, block = self.tables.pop(region), self.blocks[region]
        place, _ = find_entry(self.memory, self.root, self.levels, 2, region << _REGION)
        write_word(self.memory, place, 0)
        frames = self.host.frames
        frames["rmap"][table] = 0
        frames["rmap"][block : block + ENTRIES] = 0
        use(frames, np.array([table]), int(State.POOL))
        self.pool.put([table])

    def _entries(self, table: int) -> Any:
        """Return the 512 entries of a table, by its frame."""
        return self.memory[table * ENTRIES : (table + 1) * ENTRIES]

    def _table_of(self, region: int) -> int:
        """Return the frame of the table that the entry of level 2 of a region leads to."""
        place, _ = find_entry(self.memory, self.root, self.levels, 2, region << _REGION)
        return int(read_word(self.memory, place) & FRAME) >> PAGE_SHIFT

    def _exit(self, vcpu: Vcpu, reason: str, cycles: int) -> None:
        self.exited()
        cycles += self.costs.vm_exit + self.costs.violation_resume
        vcpu.owe("exit", cycles)
        self.exits[reason] += 1
        self.exit_cycles[reason] += cycles
