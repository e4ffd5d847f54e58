"""What shadow paging costs: the exits of one VM by reason, and their cycles."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from typing import Any

import numpy as np

from vmsim.base.ledger import Ledger
from vmsim.contracts import Vcpu, Words
from vmsim.contracts.commit import Collected
from vmsim.contracts.faults import FaultTimes
from vmsim.machine.memory import width_of
from vmsim.machine.vm_spaces import VmSpaces
from vmsim.monitor.shadow.mode import ShadowSpec
from vmsim.monitor.shadow.prices import PRICES, Exit
from vmsim.monitor.shadow.records import ShadowTables, Work, of_cpu
from vmsim.monitor.shadow.software_tlb import SoftwareTlb, total
from vmsim.monitor.shadow.state import OTHERS, OWN, ShadowMode, pay_work
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
        self._by_kernel = [0, 0]  # page faults of its own map that fill the shadow: at tables of level 1, at data
        for work, cycles in self._prices(made).items():
            state["prices"][0, work] = cycles
        self._trapped = np.empty(512, np.int64)
        self.start_bills(len(tables.cpus))
        self.loading: set[int] = set()  # vCPUs that go to another address space just now
        far = costs.map_unmap if spec.hide == "present-bit" else 0
        self._each_read = costs.guest_walk_level + far
        self.software_tlbs = [SoftwareTlb(entries, hit_cycles=costs.software_tlb_hit) for _ in self.of]
        self._finding = costs.violation_walk
        self._fault = costs.page_fault_exit + costs.vm_entry + costs.violation_resume
        self._other = costs.vm_exit + costs.violation_resume
        step = {"trap-flag": costs.step_trap_flag, "debug-register": costs.step_debug_register}[spec.step]
        stepped = spec.trap == "single-step"
        self.latency = FaultTimes()
        self.prices = np.zeros(1, PRICES)
        for name, cycles in (
            ("fault", self._fault),
            ("other", self._other),
            ("inject", costs.inject),
            ("each_read", self._each_read),
            ("host_walk", costs.violation_walk),
            ("restock", costs.violation_pool),
            ("emulated", self._fault + far + (costs.map_unmap if stepped else costs.decode + costs.emulate)),
            ("stepped", stepped),
            ("debug", self._fault + step),
            ("left", self._fault + costs.violation_entry),
            ("others", len(self.of) > 1),
        ):
            self.prices[name] = cycles

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
        ledger.counters("shadow", lambda: {work.name.lower(): int(self.state["work"][0, work]) for work in Work})
        ledger.counters("pagers", self._pagers)
        ledger.counters("software_tlb", lambda: total(self.software_tlbs))

    def _pagers(self) -> dict[str, int]:
        """Return page faults of the hardware by what the address leads to, and by the privilege of the access (CPL).

        In plex86 both pick the pager that handles the fault. The guest's kernel runs at CPL 0, its programs at 3.
        """
        table, directory = self.state["trapped"][0].tolist()
        by_table, by_directory = self.prices["programs"][0].tolist()
        by_table_0, by_data_0 = self._by_kernel
        by_data_0 += int(self.prices["noted"][0])
        return {
            "directory_0": directory,
            "directory_3": by_directory,
            "table_0": table + by_table_0,
            "table_3": by_table,
            "data_0": self.exits["HOST_FAULT"] + by_data_0,
            "data_3": sum(self.exits[reason] for reason in _DATA) - by_table_0 - by_data_0,
        }

    def _room(self, count: int) -> Words:
        """Return an array with room for so many numbers."""
        if len(self._trapped) < count:
            self._trapped = np.empty(count, np.int64)
        return self._trapped

    def _stores_until_free(self) -> int:
        """Return how many stores to a table trap before its shadow is dropped."""
        entries = 1 << int(width_of(int(self.state["levels"][0])))
        return min(entries, int(self.state["flood"][0]) or entries)

    @abstractmethod
    def mode_of(self, vcpu: Vcpu) -> ShadowMode:
        """Return its state as compiled code works with it for a vCPU."""

    def _pay(self, vcpu: Vcpu, kernel: Any, *arguments: Any) -> Any:
        """Call a commit kernel for a vCPU's exit; return what it says."""
        return self.commit(vcpu, kernel, self.mode_of(vcpu), *arguments)

    def _work(self, vcpu: Vcpu) -> None:
        """Pay for what the kernels did, and flush what they took from under the TLBs."""
        if self._due[vcpu.number] or self._flush[0] or self._remote[0]:
            self._pay(vcpu, pay_work)

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

    def count(self, vcpu: Vcpu, done: Collected) -> None:
        """Count what is on a bill, and have TLBs flushed where it says so."""
        super().count(vcpu, done)
        if flush := done.flush:
            if flush & OTHERS:
                vcpu.kick_others()  # and has paid for it
            self._forget(vcpu, own=flush & OWN != 0, others=flush & OTHERS != 0)

    def _close(self, vcpu: Vcpu, reason: str) -> None:
        super()._close(vcpu, reason)
        number = (int(self.state["exit"][0]) + 1) & 0x7FFFFFFF  # as `end_exit`
        self.state["exit"][0] = self.cpus["exit"][vcpu.number] = number
