"""NUMA balancing (Linux 6.12, kernel/sched/fair.c, mm/mprotect.c, mm/memory.c, mm/migrate.c).

Memory is scanned a part at a time (task_numa_work): entries lose their rights, so that the next access to a page is
noticed. Who makes it is a vCPU, and the node that runs it the one that the page should lie in. It goes there unless
it was another node's vCPU that accessed it before. From slower memory it goes at the second access that is noticed, of
the first nothing is known yet; or by its heat, where tiers are balanced (promotion.py, should_numa_migrate_memory). A
node that is nearly full gets nothing: its kswapd is woken (migrate_misplaced_folio). Before a scan, tables that are to
follow what they lead to are looked at (table_moves.py).

In Linux a thread of the VM scans as it returns to the guest; here a core of its own does, as for other daemons. Each
part is one event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from vmsim.base.units import PAGE
from vmsim.contracts import NO_FLUSH, DaemonHost, LiveVm, Steps, Vcpu, Words
from vmsim.frames.nodes import node_of
from vmsim.host.daemons.numa_balancing.period import ScanPeriod
from vmsim.host.daemons.numa_balancing.promotion import Promotion
from vmsim.host.daemons.numa_balancing.table import NumaBalancing
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.memory import HostMemory
from vmsim.host.table_moves import MovedTables
from vmsim.machine.memory import zeroed
from vmsim.scenario.nodes import INTERLEAVED

__all__ = ["Balancer", "build"]

_CHUNK = 4096  # pages that are looked at in one go
_ALIGNED = 512  # what is marked ends with a large page
_LOOKED = 8  # pages that are looked at for each that a scan may mark (virtpages)
_WINDOW = 2560 << 20  # memory that is scanned in a second at most (MAX_SCAN_WINDOW)
_COUNTED = (
    "numa_pte_updates",
    "numa_hint_faults",
    "numa_hint_faults_local",
    "numa_pages_migrated",
    "pgpromote_candidate",
    "pgpromote_success",
    "pgmigrate_fail",
)


class _Scanned:
    """What is kept of one VM."""

    def __init__(self, vm: LiveVm, period: ScanPeriod) -> None:
        self.vm = vm
        place = vm.spec.placement
        self.homes: list[int] = [place.node_of(vcpu, vm.spec.vcpus) for vcpu in range(vm.spec.vcpus)]
        self.period = period
        self.at = 0  # the next page to be scanned
        self.rounds = 0
        numbers = vm.pages.numbers
        self.marked: Words = zeroed(8 * numbers).view(np.int64)  # cycle of the last scan that marked each page
        self.last: Words = zeroed(8 * numbers).view(np.int64)  # 1 + the vCPU that accessed it last
        self.tables: MovedTables | None = None
        self.counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))

    def figures(self) -> dict[str, int]:
        """Return what was counted, and the period."""
        return self.counts | {"scan_period_cycles": self.period.cycles, "scan_rounds": self.rounds}


class Balancer:
    """NUMA balancing of a host.

    Parameters
    ----------
    parts : DaemonParts
        What the scenario says.

    Attributes
    ----------
    of : dict
        By VM, what is kept of it; its `counts` are as of /proc/vmstat.
    counts : Counter
        `cycles` of the scans of all VMs.
    """

    host: HostMemory

    def __init__(self, parts: DaemonParts) -> None:
        table: NumaBalancing = parts.table
        frequency = parts.frequency
        self.table = table
        self.costs = parts.costs
        self.second = frequency
        self.delay = table.scan_delay.cycles(frequency)
        self.bounds = table.scan_period_min.cycles(frequency), table.scan_period_max.cycles(frequency)
        self.hot = max(1, table.hot_threshold.cycles(frequency))
        self.of: dict[int, _Scanned] = {}
        self.counts: Counter[str] = Counter({"cycles": 0})
        self.promotions: dict[int, Promotion] = {}
        self.wake: Any = lambda node: None

    def _period(self, pages: int) -> ScanPeriod:
        """Return the period of a VM of so many pages: its bounds are of a scan of all memory (task_scan_min, _max).

        Nobody scans more than 2,560 MiB in a second.
        """
        parts = -(-pages * PAGE // self.table.scan_size)
        least, most = (bound // parts for bound in self.bounds)
        return ScanPeriod(max(1, least, self.second * self.table.scan_size // _WINDOW), most)

    def register(self, vms: Sequence[Any]) -> None:
        """Have accesses to pages that are marked be noticed, and each VM count what was done to it.

        VMs whose memory is interleaved are left alone (vma_policy_mof).
        """
        for vm in vms:
            if vm.pages and vm.spec.placement.pages != INTERLEAVED:
                each = self.of[vm.pages.owner] = _Scanned(vm, self._period(vm.spec.pages))
                if vm.spec.placement.moves:
                    each.tables = MovedTables(vm, vm.pages.host, self.costs)
                vm.pages.hint_to(lambda vcpu, number, each=each: self._fault(each, vcpu, number))
                vm.ledger.counters("numa_balancing", each.figures)
                vm.ledger.counters("numa_balancing_host", lambda: self.counts)

    def run(self, host: DaemonHost) -> Steps[None]:
        """Scan from now on, and have nodes be ready for pages that come."""
        if not self.of:
            return
        self.host = host.host
        nodes = self.host.nodes
        if self.table.tiering and (demoter := host.daemons.get("demotion")):
            demoter.promotes = True
            self.wake = demoter.wake
        limit = self.table.promote_rate_limit // PAGE
        self.promotions = {
            node: Promotion(
                nodes.sizes[node],
                nodes.marks[node].promo,
                hot=self.hot,
                limit=limit,
                second=self.second,
                period=self.bounds[1],
            )
            for node in range(nodes.turns)
        }
        for each in self.of.values():
            host.env.process(self._scan(host, each))
        yield from ()

    def _scan(self, host: DaemonHost, each: _Scanned) -> Steps[None]:
        """Scan the memory of one VM, a part each period."""
        env = host.env
        while not each.vm.able:
            if each.vm.gone:
                return
            yield env.background(max(1, self.delay))
        yield env.background(max(1, self.delay))
        while not each.vm.gone:
            spent = self._mark(each, env.cycle) if each.vm.able else 0
            self.counts["cycles"] += spent
            yield env.background(each.period.cycles + spent)

    def _mark(self, each: _Scanned, now: int) -> int:
        """Mark the next part of a VM's memory; return the cycles of it."""
        memory, flush = each.vm.pages, NO_FLUSH
        pages = self.table.scan_size // PAGE
        spent = each.tables.look() if each.tables else 0  # before entries of a guest's pages are cleared
        looked, marked = pages * _LOOKED, 0
        while marked < pages and looked > 0:
            wanted = -(-(pages - marked) // _ALIGNED) * _ALIGNED
            count = min(_CHUNK, memory.numbers - each.at, looked, wanted)
            found = memory.hintable(each.at, count)
            if not (self.table.normal or not len(found)):
                found = found[node_of(self.host.zone, memory.frames_each(found)) >= self.host.nodes.turns]
            if len(found):
                flush += memory.hint_each(found)
                each.marked[found] = now
                heads = len(memory.heads(found))
                each.counts["numa_pte_updates"] += heads
                marked += len(found)
                spent += heads * self.costs.entry_edit
            looked -= count
            each.at += count
            if each.at >= memory.numbers:
                each.at = 0
                each.rounds += 1
                if self.table.normal:  # faults of slower memory are no reason to change it (task_numa_fault)
                    each.period.end_round()
                break
        spent += (pages * _LOOKED - looked) * self.costs.log_scan
        return spent + (each.vm.forget(flush) if flush != NO_FLUSH else 0)

    def _fault(self, each: _Scanned, vcpu: Vcpu, number: int) -> int:
        """Handle an access to a page that was marked (do_numa_page); return the cycles of it."""
        memory, nodes, home = each.vm.pages, self.host.nodes, each.homes[vcpu.number]
        node = int(node_of(self.host.zone, memory.frames_each(np.array([number])))[0])
        pages, last = 1 << memory.order_of(number), int(each.last[number])
        counts, private = each.counts, last in (0, vcpu.number + 1)
        counts["numa_hint_faults"] += 1
        counts["numa_hint_faults_local"] += node == home
        cycles = 0 if each.vm.spec.bare else self.costs.host_fault
        by_heat = self.table.tiering and node >= nodes.turns
        if by_heat:
            now = self.host.env.cycle
            promotion = self.promotions[home]
            before = promotion.candidates
            wanted = promotion.wants(now, now - int(each.marked[number]), self.host.free_on(home), pages)
            counts["pgpromote_candidate"] += promotion.candidates - before
            each.marked[number] = now
        else:
            wanted = each.homes[last - 1] == home if last else node < nodes.turns
            each.last[number] = vcpu.number + 1
        moved = True
        if wanted and node != home:
            spent = self._move(each, number, pages, home, promoted=node >= nodes.turns)
            moved, cycles = spent > 0, cycles + spent
        if not by_heat:
            each.period.fault(local=node == home, private=private, moved=moved)
        return cycles

    def _move(self, each: _Scanned, number: int, pages: int, home: int, *, promoted: bool) -> int:
        """Move a page to the node that uses it; return the cycles of it, 0: it stays where it is."""
        memory, host = each.vm.pages, self.host
        marks = host.nodes.marks[home]
        if not memory.movable(number):
            return 0
        order = pages.bit_length() - 1
        if host.free_on(home) - pages <= marks.high:  # migrate_balanced_pgdat
            if self.table.tiering:
                self.wake(home)
            each.counts["pgmigrate_fail"] += pages
            return 0
        block = host.take_on(home, 1, order=order, least=marks.high)
        if not len(block):
            each.counts["pgmigrate_fail"] += pages
            return 0
        first = memory.frame_of(number) & -pages
        if order:
            memory.move_large(number, int(block[0]))
        else:
            memory.move(number, int(block[0]))
            if each.vm.spec.bare:  # whose pages have the numbers of their frames
                each.last[int(block[0])], each.last[number] = each.last[number], 0
        host.note_copies(gone := np.arange(first, first + pages), home)
        host.give(gone)
        each.counts["numa_pages_migrated"] += pages
        if promoted:
            each.counts["pgpromote_success"] += pages
        return self.costs.host_zap + self.costs.violation_entry + pages * self.costs.copy_page


def build(parts: DaemonParts) -> Balancer:
    """Return the daemon that a scenario asks for."""
    return Balancer(parts)
