"""What shadow paging costs: the exits of one VM by reason, and their cycles."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.base.histogram import Histogram
from vmsim.base.ledger import Ledger
from vmsim.contracts import Vcpu, Words
from vmsim.machine.memory import width_of
from vmsim.machine.vm_spaces import VmSpaces
from vmsim.monitor.shadow.guards import reads_of
from vmsim.monitor.shadow.mode import ShadowSpec
from vmsim.monitor.shadow.prices import PRICES, Exit
from vmsim.monitor.shadow.records import Work
from vmsim.monitor.shadow.software_tlb import SoftwareTlb
from vmsim.monitor.software import SoftwareMonitor
from vmsim.scenario.cpu import Cost

__all__ = ["Account"]


_DATA = ("SHADOW_FILL", "WRITE_PROTECT", "TRUE_FAULT")


class Account(SoftwareMonitor):
    """The exits of a shadow monitor so far, and what the one under way has cost.

    Parameters
    ----------
    state : SHADOW[1]
        Where the kernels note their work.
    spec : ShadowSpec
        How the monitor shadows.
    entries : int
        Of the software TLB.
    """

    reasons: tuple[str, ...] = tuple(reason.name for reason in Exit)

    def __init__(self, state: NDArray[Any], *, spec: ShadowSpec, costs: Cost, spaces: VmSpaces, entries: int) -> None:
        self.state = state
        self.spec = spec
        self.costs = costs
        self.spaces = spaces
        self.exits: Counter[str] = Counter()
        self.exit_cycles: Counter[str] = Counter()
        self._flush = state["flush"]
        self._due = state["due"]
        self._number = state["exit"]
        self._by_programs = [0, 0]  # accesses to tables of level 1, and to those above
        self._by_kernel = [0, 0]  # page faults of its own map that fill the shadow: at tables of level 1, at data
        for work, cycles in self._prices().items():
            state["prices"][0, work] = cycles
        self._trapped = np.empty(512, np.int64)
        self._spent = 0  # in the exit under way
        far = costs.map_unmap if spec.hide == "present-bit" else 0
        self._each_read = costs.guest_walk_level + far
        self.software_tlb = SoftwareTlb(entries, hit_cycles=costs.software_tlb_hit)
        self._fault = costs.page_fault_exit + costs.vm_entry + costs.violation_resume
        self._other = costs.vm_exit + costs.violation_resume
        step = {"trap-flag": costs.step_trap_flag, "debug-register": costs.step_debug_register}[spec.step]
        self._stepped = spec.trap == "single-step"
        self._emulated = self._fault + far + (costs.map_unmap if self._stepped else costs.decode + costs.emulate)
        self._left = self._fault + costs.violation_entry
        self._debug = self._fault + step
        self.latency = Histogram()
        self._compiled_prices = np.zeros(1, PRICES)
        for name, cycles in (
            ("fault", self._fault),
            ("other", self._other),
            ("inject", costs.inject),
            ("each_read", self._each_read),
            ("host_walk", costs.violation_walk),
            ("restock", costs.violation_pool),
            ("emulated", self._emulated),
            ("stepped", self._stepped),
            ("debug", self._debug),
            ("left", self._left),
        ):
            self._compiled_prices[name] = cycles

    def _prices(self) -> dict[Work, int]:
        """Return what each thing that the kernels count costs; clearing an entry is part of what made it necessary."""
        costs = self.costs
        return {
            Work.FILLED: costs.violation_entry + costs.violation_rmap,
            Work.MADE: costs.table_page,
            Work.DROPPED: costs.shadow_drop,
            Work.FOLDED: costs.ad_sync,
            Work.CHECKED: costs.resync_entry,
            Work.MAPPED: costs.map_unmap,
        }

    def register(self, ledger: Ledger) -> None:
        """Say what it counts: the kernels' work, page faults by pager, and what the software TLB does."""
        super().register(ledger)
        tlb = self.software_tlb
        ledger.counters("shadow", lambda: {work.name.lower(): int(self.state["work"][0, work]) for work in Work})
        ledger.counters("pagers", self._pagers)
        ledger.counters(
            "software_tlb", lambda: {"hits": tlb.hits, "misses": tlb.misses, "saved_cycles": tlb.saved_cycles}
        )

    def _pagers(self) -> dict[str, int]:
        """Return page faults of the hardware by what the address leads to, and by the privilege of the access (CPL).

        In plex86 both pick the pager that handles the fault. The guest's kernel runs at CPL 0, its programs at 3.
        """
        table, directory = self.state["trapped"][0].tolist()
        return {
            "directory_0": directory,
            "directory_3": self._by_programs[1],
            "table_0": table + self._by_kernel[0],
            "table_3": self._by_programs[0],
            "data_0": self.exits["HOST_FAULT"] + self._by_kernel[1],
            "data_3": sum(self.exits[reason] for reason in _DATA) - sum(self._by_kernel),
        }

    def _room(self, count: int) -> Words:
        """Return an array with room for so many numbers."""
        if len(self._trapped) < count:
            self._trapped = np.empty(count, np.int64)
        return self._trapped

    def _trap(self, vcpu: Vcpu, reason: str, gfns: Words) -> None:
        """Pay for accesses to hidden tables that were emulated or stepped; an exit each, with a second for a step."""
        vcpu.spaces.exited()
        count = len(gfns)
        self._spend(vcpu, count * self._emulated + self._find(gfns))
        self.exits[reason] += count
        if self._stepped:
            self.exits["DEBUG"] += count
            self.exit_cycles["DEBUG"] += count * self._debug
            vcpu.owe("exit", count * self._debug)

    def _leave(self, vcpu: Vcpu, gfns: Words) -> None:
        """Pay for stores after which their tables are left to the guest, an exit each."""
        vcpu.spaces.exited()
        self.exits["PT_WRITE"] += len(gfns)
        self._spend(vcpu, len(gfns) * self._left + self._find(gfns))

    def _find(self, gfns: Words) -> int:
        """Return what the walks to tables cost, in the map that the guest's kernel has of all its memory."""
        tlb = self.software_tlb
        if not tlb.entries:
            tlb.misses += len(gfns)
            return int(reads_of(self.state, gfns)) * self._each_read
        cycles = 0
        for at, gfn in enumerate(gfns.tolist()):  # that map is one more address space's worth of pages
            cycles += tlb.cycles(-1 - gfn, int(reads_of(self.state, gfns[at : at + 1])) * self._each_read)
        return cycles

    def _overwrite(self, vcpu: Vcpu, gfn: int, tables: int, directories: int, left: int) -> None:
        """Pay for stores all over tables that the monitor still guards, until it guards them no more.

        The tables are those of level 1, the directories those above; `left` are those that the first store leaves.
        """
        each = self._stores_until_free()
        if tables or directories:
            self._trap(vcpu, "PT_WRITE", np.full((tables + directories) * each, gfn))
        if left:
            self._leave(vcpu, np.full(left, gfn))
        self.state["trapped"][0] += tables * each + left, directories * each

    def _stores_until_free(self) -> int:
        """Return how many stores to a table trap until it has no shadow any more."""
        entries = 1 << int(width_of(int(self.state["levels"][0])))
        return min(entries, int(self.state["flood"][0]) or entries)

    def _make_access(self, vcpu: Vcpu, *, write: bool, times: int, directory: bool) -> None:
        """Make a program's accesses to a page that is a hidden table, one exit each."""
        self._by_programs[directory] += times
        reason = "PT_WRITE" if write else "PT_READ"
        walk = int(self.state["reads"][0]) * self._each_read
        self._spend(vcpu, (times - 1) * (self._fault + walk))
        self._spend(vcpu, times * (self._emulated - self._fault))
        self.exits[reason] += times
        if self._stepped:
            self.exits["DEBUG"] += times
            self.exit_cycles["DEBUG"] += times * self._debug
            vcpu.owe("exit", times * self._debug)
        self._close(reason)

    def _work(self, vcpu: Vcpu) -> None:
        """Pay for what the kernels did, and flush what they took from under the TLBs."""
        if cycles := int(self._due[0]):
            self._due[0] = 0
            self._spend(vcpu, cycles)
        if self._flush[0]:
            self._flush[0] = 0
            self.spaces.flush_all()
            self.state["stale"] = 0

    def collect(self, vcpu: Vcpu, bill: NDArray[Any]) -> None:
        """Count the exits that compiled code has handled, their cycles, and how long faults took."""
        super().collect(vcpu, bill)
        self.software_tlb.misses += int(self._compiled_prices["walks"][0])
        self._compiled_prices["walks"] = 0
        if bill["flush"][0]:
            self.spaces.flush_all()
            self.state["stale"] = 0

    def _spend(self, vcpu: Vcpu, cycles: int) -> None:
        vcpu.owe("exit", cycles)
        self._spent += cycles

    def _count(self, reason: str, count: int = 1) -> None:
        """End exits of a kind."""
        self.exits[reason] += count
        self._close(reason)

    def _close(self, reason: str) -> None:
        if self._spent:
            self.exit_cycles[reason] += self._spent
            self._spent = 0
        self._number[0] = (self._number[0] + 1) & 0x7FFFFFFF  # as `end_exit`
