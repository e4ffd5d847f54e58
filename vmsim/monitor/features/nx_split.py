"""Large pages of nested tables that are not executable, and are split where code is fetched: KVM's `nx_huge_pages`.

The mitigation of iTLB multihit (CVE-2018-12207), after Linux: arch/x86/kvm/mmu/mmu.c (`disallowed_hugepage_adjust`,
`kvm_recover_nx_huge_pages`) and tdp_mmu.c (`tdp_mmu_split_huge_page`), Documentation/admin-guide/hw-vuln/multihit.rst.
Under EPT such pages lack the right to execute, in other formats they have the bit NX (spte.c, `make_spte`).
A fetch from a large page violates, and the page is split into executable ones of 4 KiB; the host's page behind them
stays whole. Now and then the tables made longest ago are cleared: the next access maps the large page again, or if it
is a fetch, the small page that it wants alone, and others beside it as they are touched.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vmsim.contracts import Exit, Resume, Steps, Vcpu, Words
from vmsim.frames.buddy import use
from vmsim.frames.records import State
from vmsim.machine.formats import CODE_FETCH, CODE_PRESENT, ENTRIES, FRAME, PAGE_SHIFT
from vmsim.machine.memory import find_entry, read_word, write_word
from vmsim.monitor.features.base import Nested
from vmsim.monitor.features.nx_recovery import SPLIT, NxRecovery
from vmsim.scenario.nx_split import NxSplitSpec
from vmsim.tables.backing import IDENTITY, page_of
from vmsim.tables.dirty import NO_LARGE, large_page
from vmsim.tables.edit import MAPPED, map_page, map_pages, missing_tables, translate

__all__ = ["NxSplit"]


_REGION = 21  # shift of the gpas that a page of 2 MiB maps


class NxSplit(NxRecovery):
    """Large pages of 2 MiB that are not executable.

    While no large page would be made, since a dirty log is kept, what is split is not kept for a recovery: that would
    come back small (KVM's kvm_recover_nx_huge_pages leaves such pages alone). When the log ends they are large again,
    and not executable.

    Parameters
    ----------
    tdp : Nested
        The monitor.
    spec : NxSplitSpec
        When pages are recovered.
    flush : callable
        Makes the processors forget nested translations.

    Attributes
    ----------
    blocks : dict
        First frame of the host's large page by region (gpa >> 21), where small pages map it, or for now nothing does.
    tables : dict
        Those of the regions that small pages map, and their table's frame; the first was made longest ago.
    """

    tdp: Nested

    def __init__(self, tdp: Nested, spec: NxSplitSpec, flush: Callable[[], None]) -> None:
        super().__init__(tdp, spec, flush)
        self.blocks: dict[int, int] = {}
        self.tables: dict[int, int] = {}
        tdp.large = tdp.form.data
        tdp.compiled = tdp.compiled and not tdp.page_order  # whose entries it takes away

    def handle(self, vcpu: Vcpu, exit: Exit) -> Steps[Resume | None]:
        """Handle a fetch from a large page: split it."""
        if not (exit.code & CODE_FETCH and exit.code & CODE_PRESENT):
            return None
        tdp, gpa = self.tdp, exit.gpa
        start = vcpu.now
        before, vcpu.kind = vcpu.kind, 0
        (table,) = yield from tdp.take(vcpu, 1)
        region, edits = gpa >> _REGION, self.costs.violation_pool
        if int(large_page(*self._tables, gpa, gpa + 1)) == NO_LARGE:  # since it has waited
            tdp.pool.put([table])
        else:
            block = int(translate(*self._tables, region << _REGION)) >> PAGE_SHIFT
            tdp.split(gpa, table)
            if tdp.page_order:
                self.blocks[region], self.tables[region] = block, table
            edits = tdp.each_table + ENTRIES * self.costs.entry_edit
        self._exit(vcpu, SPLIT, self.costs.violation_walk + edits)
        tdp.latency.note(vcpu, start, before)
        return Resume.RETRY

    def back(self, vcpu: Vcpu, gpa: int, code: int) -> Steps[int | None]:
        """Map the page of `gpa`: a small one to fetch from, or where there are small ones; else a large one."""
        tdp, region = self.tdp, gpa >> _REGION
        self._drop_if_broken(region)
        block = self.blocks.get(region)
        if block is None:  # new to the host; a fetch violates now, and once more when the page is large
            return None
        if code & CODE_FETCH or region in self.tables:
            level, page, bits = 1, block + (gpa >> PAGE_SHIFT) % ENTRIES, tdp.form.page
        else:
            level, page, bits = 2, block, tdp.large
            del self.blocks[region]
        place = tdp.root, tdp.levels, level, IDENTITY, gpa & -(1 << (3 + 9 * level))
        missing = int(map_page(tdp.memory, tdp.host.frames, *place, page, bits))
        if missing > 0:
            made = yield from tdp.take(vcpu, missing)
            rest = np.array([page]), np.array(made), tdp.form.table, bits
            map_pages(tdp.memory, tdp.host.frames, *place, *rest)
            self.tables[region] = self._table_of(region)
        tdp.host.frames["rmap"][page] = (gpa >> PAGE_SHIFT) - (0 if level == 1 else (gpa >> PAGE_SHIFT) % ENTRIES) + 1
        return tdp.mapping_cycles(missing, 0)

    def split_pages(self) -> list[int]:
        """Return the regions that tables map, in the order in which these were made."""
        for region in [*self.blocks]:
            self._drop_if_broken(region)
        return [*self.tables]

    def clear(self, pages: list[int]) -> int:
        """Take away the tables of some regions."""
        for region in pages:
            self._clear(region)
        return len(pages)

    def unmaps(self, gfn: int) -> bool:
        """Whether nothing maps a guest frame since its small page was recovered."""
        if gfn >> (_REGION - PAGE_SHIFT) not in self.blocks:
            return False
        return int(missing_tables(*self._tables, 1, IDENTITY, gfn << PAGE_SHIFT)) != MAPPED

    @property
    def _tables(self) -> tuple[Words, int, int]:
        """Memory, and the root and levels of the nested tables in it."""
        return self.tdp.memory, self.tdp.root, self.tdp.levels

    def _drop_if_broken(self, region: int) -> None:
        """Forget a region of which the host has taken or moved a page: its small pages stay small ones."""
        if region in self.blocks:
            own = page_of(self.tdp.backing, region << (_REGION - PAGE_SHIFT), 9)
            if own is None or own[1] < 9:
                del self.blocks[region]
                self.tables.pop(region, None)

    def _clear(self, region: int) -> None:
        """Take away the table of a region; what touches it next finds the host's page whole."""
        table = self.tables.pop(region)
        tdp = self.tdp
        place, _ = find_entry(*self._tables, 2, region << _REGION)
        write_word(tdp.memory, place, 0)
        frames = tdp.host.frames
        frames["rmap"][table] = 0
        use(frames, np.array([table]), int(State.POOL))
        tdp.pool.put([table])

    def _entries(self, table: int) -> Words:
        """Return the 512 entries of a table, by its frame."""
        return self.tdp.memory[table * ENTRIES : (table + 1) * ENTRIES]

    def _table_of(self, region: int) -> int:
        """Return the frame of the table that the entry of level 2 of a region leads to."""
        place, _ = find_entry(*self._tables, 2, region << _REGION)
        return int(read_word(self.tdp.memory, place) & FRAME) >> PAGE_SHIFT
