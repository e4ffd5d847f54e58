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
from vmsim.monitor.mmu_lock import MmuLock
from vmsim.monitor.shadow.commit import OTHERS, OWN
from vmsim.monitor.shadow.guards import reads_of
from vmsim.monitor.shadow.mode import ShadowSpec
from vmsim.monitor.shadow.prices import PRICES, Exit
from vmsim.monitor.shadow.records import ShadowTables, Work, of_cpu
from vmsim.monitor.shadow.software_tlb import SoftwareTlb, total
from vmsim.monitor.software import TableKeeper
from vmsim.scenario.cpu import Cost

__all__ = ["Account"]


_DATA = ("SHADOW_FILL", "WRITE_PROTECT", "TRUE_FAULT")


class Account(TableKeeper):
    """The exits of a shadow monitor so far, and what the one under way has cost.

    Parameters
    ----------
    tables : ShadowTables
        Where the kernels note their work, for all vCPUs (`make_shadow`).
    spec : ShadowSpec
        How the monitor shadows.
    entries : int
        Of the software TLB.
    made : int
        Cycles of a shadow page made.
    """

    lock: MmuLock
    reasons: tuple[str, ...] = tuple(reason.name for reason in Exit)

    def __init__(
        self, tables: ShadowTables, *, spec: ShadowSpec, costs: Cost, spaces: VmSpaces, entries: int, made: int
    ) -> None:
        self.state = state = tables.states
        self.cpus = tables.cpus
        self.of = [of_cpu(tables, number) for number in range(len(tables.cpus))]  # the tables of each vCPU
        self.spec = spec
        self.costs = costs
        self.spaces = spaces
        self.exits: Counter[str] = Counter()
        self.exit_cycles: Counter[str] = Counter()
        self._flush = state["flush"]
        self._remote = state["remote"]
        self._due = tables.cpus["due"]
        self._by_programs = [0, 0]  # accesses to tables of level 1, and to those above
        self._by_kernel = [0, 0]  # page faults of its own map that fill the shadow: at tables of level 1, at data
        for work, cycles in self._prices(made).items():
            state["prices"][0, work] = cycles
        self._trapped = np.empty(512, np.int64)
        self._bills = [0] * len(tables.cpus)
        self.loading: set[int] = set()  # vCPUs that go to another address space just now
        far = costs.map_unmap if spec.hide == "present-bit" else 0
        self._each_read = costs.guest_walk_level + far
        self.software_tlbs = [SoftwareTlb(entries, hit_cycles=costs.software_tlb_hit) for _ in self.of]
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
            ("others", len(self.of) > 1),
        ):
            self._compiled_prices[name] = cycles

    def _prices(self, made: int) -> dict[Work, int]:
        """Return what each thing that the kernels count costs; clearing an entry is part of what made it necessary."""
        costs = self.costs
        return {
            Work.FILLED: costs.violation_entry + costs.violation_rmap,
            Work.MADE: made,
            Work.DROPPED: costs.shadow_drop,
            Work.FOLDED: costs.ad_sync,
            Work.CHECKED: costs.resync_entry,
            Work.MAPPED: costs.map_unmap,
        }

    def register(self, ledger: Ledger) -> None:
        """Say what it counts: the kernels' work, page faults by pager, and what the software TLB does."""
        super().register(ledger)
        self.lock.register(ledger)
        ledger.counters("shadow", lambda: {work.name.lower(): int(self.state["work"][0, work]) for work in Work})
        ledger.counters("pagers", self._pagers)
        ledger.counters("software_tlb", lambda: total(self.software_tlbs))

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
        self._spend(vcpu, count * self._emulated + self._find(vcpu, gfns))
        self.exits[reason] += count
        if self._stepped:
            self.exits["DEBUG"] += count
            self.exit_cycles["DEBUG"] += count * self._debug
            vcpu.owe("exit", count * self._debug)

    def _leave(self, vcpu: Vcpu, gfns: Words) -> None:
        """Pay for stores after which their tables are left to the guest, an exit each."""
        vcpu.spaces.exited()
        self.exits["PT_WRITE"] += len(gfns)
        self._spend(vcpu, len(gfns) * self._left + self._find(vcpu, gfns))

    def _find(self, vcpu: Vcpu, gfns: Words) -> int:
        """Return what the walks to tables cost, in the map that the guest's kernel has of all its memory."""
        tlb = self.software_tlbs[vcpu.number]
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
        """Return how many stores to a table trap before its shadow is dropped."""
        entries = 1 << int(width_of(int(self.state["levels"][0])))
        return min(entries, int(self.state["flood"][0]) or entries)

    def _make_access(self, vcpu: Vcpu, *, write: bool, times: int, directory: bool) -> None:
        """Make a program's accesses to a page that is a hidden table, one exit each."""
        self._by_programs[int(directory)] += times
        reason = "PT_WRITE" if write else "PT_READ"
        walk = int(self.state["reads"][0]) * self._each_read
        self._spend(vcpu, (times - 1) * (self._fault + walk))
        self._spend(vcpu, times * (self._emulated - self._fault))
        self.exits[reason] += times
        if self._stepped:
            self.exits["DEBUG"] += times
            self.exit_cycles["DEBUG"] += times * self._debug
            vcpu.owe("exit", times * self._debug)
        self._close(vcpu, reason)

    def _work(self, vcpu: Vcpu) -> None:
        """Pay for what the kernels did, and flush what they took from under the TLBs."""
        cycles = int(self._due[vcpu.number])
        if self.lock:
            kicks = vcpu.kick_cycles() if self._flush[0] or self._remote[0] else 0
            cycles += self.lock.hold(vcpu.now, cycles + kicks)
        if cycles:
            self._due[vcpu.number] = 0
            self._spend(vcpu, cycles)
        self._flush_tlbs(vcpu)

    def _flush_tlbs(self, vcpu: Vcpu) -> None:
        """Flush what the kernels took from under the TLBs, before anybody waits.

        Of what the guest has the monitor take from the shadow the guest flushes the TLB of its own vCPU; from those of
        others the monitor does, and interrupts them (KVM, arch/x86/kvm/mmu/mmu.c: `kvm_flush_remote_tlbs` at the end of
        `kvm_mmu_track_write`, `__kvm_mmu_invalidate_addr`, `mmu_set_spte`, `kvm_mmu_remote_flush_or_zap`).
        """
        own, others = bool(self._flush[0]), len(self.of) > 1 and bool(self._flush[0] or self._remote[0])
        self._flush[0] = self._remote[0] = 0
        if others:
            self._spend(vcpu, vcpu.kick_others())
        self._forget(vcpu, own=own, others=others)

    def _forget(self, vcpu: Vcpu, *, own: bool, others: bool) -> None:
        """Drop what TLBs keep: of the vCPU itself, of the VM's others."""
        for number, spaces in enumerate(self.spaces):
            if own if number == vcpu.number else others:
                spaces.flush_all()
                self._told(number)

    def _told(self, number: int) -> None:
        """Note that the TLB of a vCPU has nothing any more that the guest has taken away."""
        self.cpus["stale"][number] = 0
        self.cpus["seen"][number] = self.state["unseen"][0]

    def stale(self, cpu: int) -> bool:
        """Whether a vCPU's TLB may hold what the guest has taken away and not invalidated yet, or has just left."""
        late = self.cpus["stale"][cpu] or self.cpus["seen"][cpu] != self.state["unseen"][0]
        return bool(late) or cpu in self.loading

    def collect(self, vcpu: Vcpu, bill: NDArray[Any]) -> None:
        """Count the exits that compiled code has handled, their cycles, and how long faults took."""
        super().collect(vcpu, bill)
        self.software_tlbs[vcpu.number].misses += int(self._compiled_prices["walks"][0])
        self._compiled_prices["walks"] = 0
        if flush := int(bill["flush"][0]):
            if flush & OTHERS:
                vcpu.kick_others()  # and has paid for it
            self._forget(vcpu, own=flush & OWN != 0, others=flush & OTHERS != 0)

    def _close(self, vcpu: Vcpu, reason: str) -> None:
        super()._close(vcpu, reason)
        number = (int(self.state["exit"][0]) + 1) & 0x7FFFFFFF  # as `end_exit`
        self.state["exit"][0] = self.cpus["exit"][vcpu.number] = number
