"""khugepaged of the host: puts the 4 KiB pages of its guests into pages of 2 MiB (Linux 6.12, mm/khugepaged.c).

It goes round the memory of all VMs, range by range of 2 MiB, and looks at `pages_to_scan` entries before it sleeps. A
range is collapsed that has few enough entries of each kind that costs something (`hpage_collapse_scan_pmd`), of which
one at least was accessed, and on which no device works. Pages that are swapped out are brought back first
(`__collapse_huge_page_swapin`). Each batch is one event but for that, in which no time passes: khugepaged has a core of
its own, and sleeps for what the batch took.

Nobody has measured what the steps take: to look at an entry is counted as in search of dirty flags, to take a page from
where it lay as reclaim takes one, and to allocate the huge one as a host's fault does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import simpy

from vmsim.base.clock import Clock
from vmsim.contracts import NO_FLUSH, DaemonHost, LiveVm, Steps, VmStopped
from vmsim.frames.records import NO_FRAME, State
from vmsim.frames.scanners import has_block
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.daemons.thp.kcompactd import Kcompactd
from vmsim.host.huge_memory import HUGE_ORDER, Ranges
from vmsim.machine.formats import ENTRIES
from vmsim.scenario.cpu import Cost
from vmsim.scenario.thp import Khugepaged, ThpSpec

__all__ = ["HostKhugepaged", "build"]

_COUNTED = ("pages_scanned", "pages_collapsed", "alloc_failed", "exceed_none_pte", "exceed_swap_pte")
_AND = ("exceed_shared_pte", "lack_referenced", "pinned", "swapin")


class _Thread:
    """A thread of the host's that waits as a vCPU does, and pays for nothing by itself.

    Attributes
    ----------
    kind : int
        Of its fault, by what it has brought from swap; nobody counts it.
    """

    def __init__(self, env: Clock) -> None:
        self.env = env
        self.kind = 0

    @property
    def now(self) -> int:
        """The current cycle."""
        return self.env.cycle

    def settle(self) -> simpy.Event:
        """Return an event that comes at once."""
        return self.env.timeout(0)

    def wait(self, event: simpy.Event, cause: str) -> Steps[Any]:
        """Wait for an event; return its value."""
        return (yield event)


class HostKhugepaged:
    """The daemon.

    Parameters
    ----------
    spec : ThpSpec
        What it is told.
    costs : Cost
        What its steps take.

    Attributes
    ----------
    counts : Counter
        `full_scans`, and `cycles` that it has used.
    of : dict
        By VM's number, what was done to it: entries looked at (`pages_scanned`), huge pages made (`pages_collapsed`),
        those for which no block was free (`alloc_failed`); ranges left alone because they had too many entries of a
        kind (`exceed_none_pte`, `exceed_swap_pte`, `exceed_shared_pte`), too few that were accessed
        (`lack_referenced`), or a page that a device worked on (`pinned`); pages brought back (`swapin`).
    """

    def __init__(self, spec: ThpSpec, costs: Cost) -> None:
        self.spec = spec
        self.costs = costs
        self.counts: Counter[str] = Counter({"full_scans": 0, "cycles": 0})
        self.of: dict[int, Counter[str]] = {}
        self._backed: dict[int, LiveVm] = {}
        self.compact: Callable[[int], int] = lambda order: 0
        self.compaction: Counter[str] = Counter()  # of the host's scanners
        self._next = (0, 0)  # VM and range to look at

    def register(self, vms: Any) -> None:
        """Have each VM count what was done to it."""
        for vm in vms:
            if vm.spec.host_thp:
                index = vm.spec.index
                self._backed[index] = vm
                self.of[index] = Counter(dict.fromkeys(_COUNTED + _AND, 0))
                vm.ledger.counters("khugepaged", lambda index=index: self.of[index])
                vm.ledger.counters("khugepaged_host", lambda: self.counts)
                vm.ledger.counters("compaction_host", lambda: self.compaction)

    def run(self, host: DaemonHost) -> Steps[None]:
        """Look at ranges from now on."""
        if not self._backed:
            return
        kcompactd = Kcompactd(host.env, host.compaction, self.costs)
        self.compact, self.compaction = kcompactd.compact, kcompactd.counts
        if self.spec.compacts(advised=True):
            host.host.defrag = kcompactd.compact
        elif self.spec.wakes(advised=True):
            host.host.defrag = kcompactd.wake
            host.env.process(kcompactd.run())
        told = self.spec.khugepaged
        if told is None:
            return
        spent = 0
        while True:
            yield host.env.background(told.sleep + spent, frees=True, work=spent)
            spent, failed = yield from self.batch(host, told)
            self.counts["cycles"] += spent
            if failed:
                yield host.env.background(told.alloc_sleep, frees=True)

    def batch(self, host: DaemonHost, told: Khugepaged) -> Steps[tuple[int, bool]]:
        """Look at the next ranges; return the cycles that this takes, and whether no block was to be had."""
        spent, budget = self.costs.context_switch, told.pages
        while budget > 0 and (vm := self._turn()):
            index, number = self._next
            count = min(-(-budget >> HUGE_ORDER), vm.pages.ranges - number)
            seen = vm.pages.look(number, count)
            for at in range(count):
                budget -= ENTRIES
                spent += ENTRIES * self.costs.log_scan
                self.of[index]["pages_scanned"] += ENTRIES
                self._next = index, number + at + 1
                wanted = not seen.huge[at] and self._wanted(vm, told, number + at, seen, at)
                spent += vm.forget(NO_FLUSH)  # its copies of tables, where it has any, were read too
                if not wanted:
                    continue
                if seen.swapped[at]:
                    there = yield from self._bring_back(host, vm, number + at)
                    if not vm.able:
                        break
                    seen = vm.pages.look(number, count)  # time has passed
                    if not there:
                        continue
                cycles = self._collapse(host, vm, told, number + at)
                if cycles < 0:
                    return spent, True
                spent += cycles
        return spent, False

    def _turn(self) -> LiveVm | None:
        """Return the VM whose turn it is; None: all have been gone through, and the next round begins."""
        for index, vm in self._backed.items():
            if index >= self._next[0] and vm.able:
                if index > self._next[0]:
                    self._next = index, 0
                if self._next[1] < vm.pages.ranges:
                    return vm
        self._next = 0, 0
        self.counts["full_scans"] += 1
        return None

    def _wanted(self, vm: LiveVm, told: Khugepaged, number: int, seen: Ranges, at: int) -> bool:
        """Whether a range is to be collapsed; count why not (hpage_collapse_scan_pmd)."""
        memory, counts = vm.pages, self.of[vm.pages.owner]
        if seen.none[at] == ENTRIES:
            return False
        for kind, most in (("none", told.none), ("swap", told.swap), ("shared", told.shared)):
            if (seen.swapped if kind == "swap" else getattr(seen, kind))[at] > most:
                counts[f"exceed_{kind}_pte"] += 1
                return False
        if memory.busy(number):
            counts["pinned"] += 1
            return False
        referenced = int(memory.second.age(number << HUGE_ORDER, ENTRIES, clear=False).sum())
        if not referenced or (seen.swapped[at] and referenced < ENTRIES // 2):
            counts["lack_referenced"] += 1
            return False
        return True

    def _bring_back(self, host: DaemonHost, vm: LiveVm, number: int) -> Steps[bool]:
        """Bring the pages of a range back from the swap device; return whether it can then be collapsed."""
        memory, first, thread = vm.pages, number << HUGE_ORDER, _Thread(host.env)
        while memory.swapped and vm.able:
            away = next((gfn for gfn in range(first, first + ENTRIES) if memory.swapped_out(gfn)), None)
            if away is None:
                break
            if host.host.free <= host.host.marks.low:
                return False
            try:
                self.counts["cycles"] += (yield from memory.bring(thread, away, write=False))[0]
            except VmStopped:  # it cannot be read: that is for the guest to find out
                return False
            self.of[memory.owner]["swapin"] += 1
        if not vm.able:
            return False
        seen = memory.look(number, 1)
        away = bool(memory.swapped and seen.swapped[0])
        return not (away or seen.huge[0] or memory.busy(number) or seen.none[0] == ENTRIES)

    def _collapse(self, host: DaemonHost, vm: LiveVm, told: Khugepaged, number: int) -> int:
        """Put a range into one page; return the cycles, -1: no block was to be had."""
        memory, costs, counts = vm.pages, self.costs, self.of[vm.pages.owner]
        limit = host.host.limits.get(memory.owner)
        pfn, spent = NO_FRAME, 0
        if limit is None or limit.allows(ENTRIES) >= ENTRIES:
            if told.defrag and not has_block(host.host.zone, HUGE_ORDER):
                spent = self.compact(HUGE_ORDER)
            pfn = host.host.take_block(memory.owner, HUGE_ORDER, State.GUEST)
        if pfn == NO_FRAME:
            counts["alloc_failed"] += 1
            return -1
        (small,), (shared,), (swapped,), (none,), _ = memory.look(number, 1)
        flush = memory.collapse(number, pfn)
        counts["pages_collapsed"] += 1
        copied = int(small + shared + swapped)
        cycles = spent + costs.host_fault + copied * costs.copy_page + int(small + shared) * costs.host_zap
        return cycles + int(none) * costs.host_zero + vm.forget(flush)


def build(parts: DaemonParts) -> HostKhugepaged:
    """Return the daemon that a scenario asks for."""
    spec = parts.table.spec(parts.frequency)
    assert spec
    assert parts.costs
    return HostKhugepaged(spec, parts.costs)
