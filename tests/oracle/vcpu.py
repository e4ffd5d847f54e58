"""The twin's vCPU: the path of an access, from its address to what it takes.

Sources: Intel SDM vol. 3A §5.10 (TLBs, paging-structure caches), vol. 3C §30.4; AMD APM vol. 2 §5.5, §15.25.
"""

from __future__ import annotations

from tests.oracle.bits import FETCH, P, reach, span, width
from tests.oracle.core import Core
from tests.oracle.translation import AgainError, PageFaultError, Translation, ViolationError, suffices
from tests.oracle.walks import COUNTED, GUEST, NESTED, Walks


class Vcpu(Walks):
    """What `Walks` is, and the accesses that a VM makes."""

    def translate(self, core: Core, gva: int, kind: int) -> Translation:
        level, found = core.translation(self.asids[GUEST], gva)
        if level != 1:
            self.count["l1_tlb_misses"] += 1
            self.count["l2_tlb_cycles"] += core.geometry.l2_tlb_cycles
        if found is not None and suffices(found, kind):
            if level == 2:
                core.tlb[0].put((self.asids[GUEST], found.size, gva // span(found.size + 1)), found)
            return found
        if found is None:
            self.count["l2_tlb_misses"] += 1
        else:  # a write to a page that is clean or read-only, a fetch that it forbids: the processor asks the tables
            self.count["dirty_walks"] += 1
            core.drop_tlb(self.asids[GUEST], gva)
        try:
            found = self.walk(core, gva, kind)
        except AgainError:
            self.gpa, self.code = -1, P | 1 << 1 | 1 << 33
            self._forget(core, gva)
            found = self.walk(core, gva, kind)
        for each in core.tlb:
            each.put((self.asids[GUEST], found.size, gva // span(found.size + 1)), found)
        return found

    def run(
        self, core: Core, runs: list[tuple[int, int, int]], cursor: int, limit: int, budget: int
    ) -> tuple[str, int, int, int]:
        """Make the runs (gva, count, kind) from `cursor` on; return (reason, cursor, cycles, gva)."""
        before = self._cycles()
        gva = 0
        while cursor < limit:
            address, times, kind = runs[cursor]
            gva = address % reach(self.levels)
            marks = self.count["l2_tlb_cycles"], self.walk_cycles
            try:
                page = self.translate(core, gva, kind)
            except (PageFaultError, ViolationError) as fault:
                self._overlap(0, marks)
                if self.window:
                    self.window.drain()
                self.gpa, self.code = fault.gpa, fault.code
                self._forget(core, gva)
                return fault.reason, cursor, self._cycles() - before, gva
            self.count["accesses"] += times
            self.count["writes"] += times if kind == 1 else 0
            self.count["compute_cycles"] += times * self.compute
            for _ in range(times):
                load, missed = 0, False
                if core.geometry.data_caches:
                    size = span(page.size + 1)
                    hpa = page.hpa // size * size + gva % size
                    served = core.reference(hpa, "L1", self.llc_ways)
                    self.data[COUNTED.get(served, served)] += 1
                    load, missed = self._load(core, hpa, served, "data"), served != "L1"
                    self.count["data_cycles"] += load
                self._overlap(self.compute, marks, load, missed=missed, fetch=kind == FETCH)
                marks = self.count["l2_tlb_cycles"], self.walk_cycles
            cursor += 1
            if self._cycles() - before >= budget:
                return "BUDGET" if cursor < limit else "DONE", cursor, self._cycles() - before, gva
        return "DONE", cursor, self._cycles() - before, gva

    def _forget(self, core: Core, gva: int) -> None:
        """Forget what a faulting walk used, so that the fault does not come back from a cache once it is mended.

        A page fault: what would be used for the gva (SDM vol. 3A §5.10.4.1). A violation: for the gpa too (vol. 3C
        §30.4.3.1). A cache of entries has no such tags; entries that are present but deny a right may come from it.
        """
        core.drop_tlb(self.asids[GUEST], gva)
        core.drop_prefixes(GUEST, self.asids[GUEST], gva, width(self.levels))
        if self.gpa >= 0:
            core.drop_prefixes(NESTED, self.asids[NESTED], self.gpa, width(self.nested_levels))
            if core.ntlb:
                core.ntlb.drop(self.gpa // 4096, (self.asids[NESTED], self.gpa // 4096))
        if core.entries and self.code & P:
            core.entries.remove_if(lambda key: True)

    def _overlap(
        self, work: int, marks: tuple[int, int], load: int = 0, *, missed: bool = False, fetch: bool = False
    ) -> None:
        """Have an access pass through the window; what it took of the second TLB and of walks is since `marks`."""
        if self.window is None:
            return
        look_up, walk = self.count["l2_tlb_cycles"] - marks[0], self.walk_cycles - marks[1]
        took = self.window.access(work, look_up, walk, load if missed else 0, fetch=fetch)
        self.hidden += work + look_up + walk + load - took

    def _cycles(self) -> int:
        count = self.count
        serial = self.walk_cycles + count["l2_tlb_cycles"] + count["compute_cycles"] + count["data_cycles"]
        return serial - self.hidden
