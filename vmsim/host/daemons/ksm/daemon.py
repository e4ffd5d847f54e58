"""ksmd: looks at the pages of all VMs in turn, some at a time, and has equal ones share a frame (Linux 6.12, mm/ksm.c).

A page is looked at as `cmp_and_merge_page` does. One that holds something else than at the last look is left alone. A
page of zeros goes to the one frame of zeros, with `use_zero_pages`. Then the tree of shared frames is searched, and if
none holds the same that has room, the tree of pages that were looked at in this round; two that are equal there become
the first that share a frame, and else the page joins that tree. Each batch is one event, in which no time passes:
ksmd has a core of its own, and sleeps for what the batch took and `sleep_millisecs`.

Nobody has measured what the steps take: waking up and going to sleep is counted as a context switch, reading a page for
its checksum as clearing one, comparing two as copying one, finding a page of a tree as pinning one; entries and the
reverse map as in a violation.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmsim.contracts import NO_FLUSH, DaemonHost, Flush, LiveVm, Steps
from vmsim.frames.records import State
from vmsim.host.daemons.ksm.advisor import ScanTimeAdvisor
from vmsim.host.daemons.ksm.scan import ITEM, make_pass, scan_pages
from vmsim.host.daemons.ksm.table import Ksm
from vmsim.host.daemons.ksm.trees import Stable, Unstable
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.identity import ZERO
from vmsim.host.memory import HOST
from vmsim.machine.memory import zeroed
from vmsim.scenario.cpu import Cost
from vmsim.tables.pages import clear_words

__all__ = ["Ksmd", "build"]

_NO_PAGES = np.empty(0, np.bool_)
_COUNTED = ("pages_scanned", "pages_skipped", "merged", "zero_pages")


class _Slot:
    """What ksmd keeps of one VM (Linux's ksm_mm_slot): an item for each page, and where it is."""

    def __init__(self, vm: LiveVm) -> None:
        self.vm = vm
        self.items: NDArray[Any] = zeroed(vm.pages.numbers * ITEM.itemsize).view(ITEM)
        self.at = make_pass()
        self.counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))


class Ksmd:
    """The daemon.

    Parameters
    ----------
    table : Ksm
        What it is told.
    costs : Cost
        What its steps take.
    frequency : int
        Cycles in a second.

    Attributes
    ----------
    scan_pages, sleep_millisecs : int
        Pages of a batch where no advisor says how many, and the time between two; a policy may change them.
    merges : bool
        Whether it works; a policy may stop it.
    counts : Counter
        `full_scans`; pages `scanned`, `skipped` and `merged`; `cycles` that it has used; `saved`, the most frames that
        were saved at once, and `sharing`, the pages that shared frames then.
    """

    def __init__(self, table: Ksm, costs: Cost, frequency: int) -> None:
        self.table = table
        self.costs = costs
        self.frequency = frequency
        self.counts: Counter[str] = Counter(dict.fromkeys(("full_scans", "scanned", "merged", "cycles", "saved"), 0))
        self.counts.update(dict.fromkeys(("skipped", "volatile", "unshared", "sharing", "chains", "dups"), 0))
        self.scan_pages = table.pages_to_scan
        self.sleep_millisecs = table.sleep_millisecs
        self.merges = True
        self.unstable = Unstable()
        self.slots: dict[int, _Slot] = {}
        self.advisor: ScanTimeAdvisor | None = None
        if table.advisor_mode != "none":
            self.advisor = ScanTimeAdvisor(
                max_cpu=table.advisor_max_cpu,
                target=table.advisor_target_scan_time,
                min_pages=table.advisor_min_pages_to_scan,
                max_pages=table.advisor_max_pages_to_scan,
            )
        self._next = 0  # VM to look at
        self._volatile = 0  # in this round
        self._round = (0, 0)  # when it began: cycle, and cycles used by then

    @property
    def pages_to_scan(self) -> int:
        """Pages of a batch."""
        return self.advisor.pages if self.advisor else self.scan_pages

    def register(self, vms: Any) -> None:
        """Have each VM count what ksmd did to it, and what it did in all."""
        for vm in vms:
            if vm.pages:
                slot = self.slots[vm.spec.index] = _Slot(vm)
                vm.ledger.counters("ksm", lambda slot=slot: slot.counts | {"broken": slot.vm.pages.broken})
                vm.ledger.counters("ksmd", lambda: self.counts)

    def run(self, host: DaemonHost) -> Steps[None]:
        """Look at pages from now on."""
        self.stable = Stable(host.host.shared, self.table.max_page_sharing)
        spent = self.costs.context_switch
        while True:
            sleep = self.sleep_millisecs * self.frequency // 1000
            yield host.env.background(sleep + spent, frees=True, work=spent)
            spent = 0
            if self.merges:
                spent = self.batch(host)
                self.counts["cycles"] += spent

    def batch(self, host: DaemonHost) -> int:
        """Look at the next pages; return the cycles that this takes."""
        slots = [slot for slot in self.slots.values() if slot.vm.able]
        budget, spent, flushes = self.pages_to_scan, self.costs.context_switch, dict[LiveVm, Flush]()
        while budget and slots:
            slot = next((slot for slot in slots if slot.vm.pages.owner >= self._next), None)
            if slot is None:
                self._end_round(host)
                break
            spent += self._scan(host, slot, budget, flushes)
            budget -= int(slot.at["scanned"][0])
            if budget:  # all of it has been looked at
                slot.at["cursor"] = 0
                self._next = slot.vm.pages.owner + 1
        shared = host.host.shared
        if (saved := shared.pages - len(shared)) > self.counts["saved"]:
            self.counts["saved"], self.counts["sharing"] = saved, shared.pages
        return spent + sum(vm.forget(flush) for vm, flush in flushes.items())

    def _end_round(self, host: DaemonHost) -> None:
        """Count a full scan, and begin another."""
        cycle, cycles = host.env.cycle, self.counts["cycles"]
        if self.advisor:
            seconds = (cycle - self._round[0]) // self.frequency
            self.advisor.scanned(seconds, (cycles - self._round[1]) * 1000 // self.frequency)
        self._round = cycle, cycles
        self.counts["full_scans"] += 1
        self.counts["volatile"], self.counts["unshared"] = self._volatile, len(self.unstable)
        self.counts["chains"], self.counts["dups"] = self.stable.chains, self.stable.dups
        self.unstable.clear()
        self.stable.prune()
        self._next = self._volatile = 0

    def _scan(self, host: DaemonHost, slot: _Slot, budget: int, flushes: dict[LiveVm, Flush]) -> int:
        """Look at pages of one VM; return the cycles."""
        memory, costs = slot.vm.pages, self.costs
        identity, room = memory.identity, min(budget, memory.numbers)
        numbers, identities = np.empty(room, np.int64), np.empty(room, np.int64)
        late = memory.second.dirty(0, memory.numbers, clear=False) if identity.late() else _NO_PAGES
        world = identity.memory, identity.backing, identity.frames, identity.record
        count = scan_pages(*world, late, slot.items, slot.at, budget, self.table.smart_scan, numbers, identities)
        (done,) = slot.at
        scanned, unique = int(done["scanned"]), int(done["unique"])
        for name, value in (("pages_scanned", scanned), ("pages_skipped", int(done["skipped"]))):
            slot.counts[name] += value
        self.counts["scanned"] += scanned
        self.counts["skipped"] += int(done["skipped"])
        self._volatile += int(done["volatile"])
        ways = self.stable.depth + self.unstable.depth
        cycles = scanned * costs.pin_page + (scanned - int(done["stable"])) * costs.host_zero
        cycles += (unique + int(count)) * ways * costs.pin_page
        self.unstable.unique += unique
        for number, what in zip(numbers[:count].tolist(), identities[:count].tolist(), strict=True):
            cycles += self._merge(host, slot, number, what, flushes)
        return cycles

    def _merge(self, host: DaemonHost, slot: _Slot, number: int, what: int, flushes: dict[LiveVm, Flush]) -> int:
        """Have a page share a frame with its equal, if there is one; return the cycles."""
        memory = slot.vm.pages
        if not memory.can_share(number):  # write_protect_page, whose caller leaves such pages
            return 0
        if what == ZERO and self.table.use_zero_pages:
            frame = self._zero_frame(host, memory)
            if frame is None:
                return 0
            slot.counts["zero_pages"] += 1
            return self._share(slot, number, frame, flushes)
        frame = self.stable.find(what)
        if frame is not None:
            return self._share(slot, number, frame, flushes)
        other = self.unstable.take(what)
        if other is None or not self._still(*other, what):
            self.unstable.insert(what, (slot, number))
            return 0
        frame = memory.frame_of(number)
        cycles = self._share(slot, number, frame, flushes)
        self.stable.insert(what, frame)
        return cycles + self._share(*other, frame, flushes)

    def _still(self, slot: _Slot, number: int, what: int) -> bool:
        """Whether a page of the unstable tree can be shared, and holds what it held when it came."""
        memory = slot.vm.pages
        if not slot.vm.able or not memory.holds(number) or not memory.can_share(number):
            return False
        if memory.identity.late() and memory.second.dirty(number, 1, clear=False)[0]:
            return False
        return bool(memory.identity.of(number) == what)

    def _share(self, slot: _Slot, number: int, frame: int, flushes: dict[LiveVm, Flush]) -> int:
        vm = slot.vm
        flushes[vm] = flushes.get(vm, NO_FLUSH) + vm.pages.share(number, frame)
        slot.counts["merged"] += 1
        self.counts["merged"] += 1
        costs = self.costs
        return 2 * costs.copy_page + costs.violation_entry + costs.violation_rmap

    def _zero_frame(self, host: DaemonHost, memory: Any) -> int | None:
        """Return the frame of zeros, which is the host's own for good once there is one; None: there is no frame."""
        shared = host.host.shared
        if shared.zero is None:
            pfns = host.host.take(HOST, 1, State.GUEST, reserve=host.host.marks.min)
            if not len(pfns):
                return None
            clear_words(memory.words, pfns)
            shared.add_zero(int(pfns[0]))
        return int(shared.zero)


def build(parts: DaemonParts) -> Ksmd:
    """Return the daemon that a scenario asks for."""
    assert parts.costs
    return Ksmd(parts.table, parts.costs, parts.frequency)
