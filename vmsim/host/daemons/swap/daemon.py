"""kswapd and direct reclaim (Linux mm/vmscan.c).

kswapd is woken when free memory is below the low watermark and the monitors' pools have given what they can spare. It
looks at one page in 2**12 of every VM's, then at one in 2**11 and so on, until as much is free, or on its way to the
device, as the high watermark says (balance_pgdat). Who asks for memory while free memory is at the min watermark is
suspended, and pages are taken on its behalf, 32 at a time (do_try_to_free_pages). When that has failed sixteen times a
VM is ended (`vmsim.host.killer`). Each look at all VMs is one event, after which the time passes that it takes: kswapd
has a core of its own. Frames of pages that are being written count as free ones: while there are as many as the low
watermark says kswapd sleeps, and who asks waits for the device (reclaim_throttle, VMSCAN_THROTTLE_WRITEBACK) and takes
no more pages, which would only make the device's queue longer.

A VM's processors leave the guest for each of its pages that is unmapped, and for each that was found accessed: KVM
flushes at once (virt/kvm/kvm_main.c, kvm_handle_hva_range). Those of a program on the host itself are told once a batch
(mm/rmap.c, try_to_unmap_flush), and of accessed flags not at all (arch/x86/mm/pgtable.c, ptep_clear_flush_young).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from vmsim.base.units import PAGE
from vmsim.contracts import NO_FLUSH, DaemonHost, LiveVm, PageLists, Steps
from vmsim.host.daemons.looking import looked
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.daemons.swap.one_by_one import OneByOne
from vmsim.host.daemons.swap.table import HostSwap
from vmsim.host.killer import RETRIES, OomKiller
from vmsim.host.memory import HostMemory
from vmsim.host.swap.compressed import CompressedMemory
from vmsim.host.swap.device import BlockDevice
from vmsim.host.swap.swap import Swap
from vmsim.host.swap.zswap import Zswap

__all__ = ["Kswapd", "build"]

PRIORITY = 12  # one page in 2**12 is looked at first (DEF_PRIORITY)
CLUSTER = 32  # pages that direct reclaim is content with (SWAP_CLUSTER_MAX)
NO_END = 1 << 62  # no number of pages is enough
FAILURES = RETRIES * CLUSTER  # writes in a row that fail, after which waiting for others is in vain


class Kswapd:
    """Takes pages from VMs while the host is short of memory.

    Parameters
    ----------
    parts : DaemonParts
        What the scenario says.
    lists : PageLists
        Which pages.

    Attributes
    ----------
    swap : Swap
        Where they go; from `register` on.
    counts : Counter
        Pages looked at (`scanned`) and taken (`stolen`) by kswapd, and the same by those who ask for memory
        (`direct_`); how often each began (`wakes`, `stalls`); `cycles` that kswapd has used; VMs that were `killed`.
    """

    swap: Swap

    def __init__(self, parts: DaemonParts, lists: PageLists) -> None:
        self.table: HostSwap = parts.table
        self.parts = parts
        self.costs = parts.costs
        self.lists = lists
        self.counts: Counter[str] = Counter(
            dict.fromkeys(("scanned", "stolen", "direct_scanned", "direct_stolen", "wakes", "stalls"), 0)
        )
        self.counts.update({"cycles": 0, "killed": 0})
        self.vms: list[LiveVm] = []
        self.host: HostMemory
        self._called: simpy.Event
        self._direct: simpy.Process | None = None
        self._failures = 0
        self._next = 0  # VM that direct reclaim begins with
        self.killer: OomKiller

    def register(self, vms: Sequence[Any]) -> None:
        """Have pages that are taken go to the device from now on, and count."""
        self.vms = [vm for vm in vms if vm.pages]
        if not self.vms:
            return
        self.host = host = self.vms[0].pages.host
        self._called = host.env.event()
        spec = self.table.spec()
        common: dict[str, Any] = {
            "seed": self.parts.seed,
            "frequency": self.parts.frequency,
            "folder": self.parts.folder,
        }
        device: BlockDevice | CompressedMemory
        if spec.compresses:
            device = CompressedMemory(spec, host, **common)
        else:
            failing = self.table.read_errors, self.table.write_errors
            device = BlockDevice(spec, read_errors=failing[0], write_errors=failing[1], **common)
        size = self.table.size // PAGE or host.size
        self.swap = Swap(host, size, device, self.table.page_cluster, self.costs)
        self.swap.lists = self.lists
        if self.table.zswap:
            most = host.size * self.table.zswap_max_pool_percent // 100
            compressed = CompressedMemory(self.table.zswap_spec(), host, **common)
            least = most * self.table.zswap_accept_threshold_percent // 100
            area, submit = self.swap.area, self.swap.submit_writes
            self.swap.zswap = Zswap(host, area, compressed, submit, most=most, least=least)
        host.shrinker = self
        self.killer = host.killer
        for vm in vms:
            if vm.pages:
                vm.pages.swap_to(self.swap)
                owner = vm.pages.owner
                vm.ledger.counters("swap", lambda owner=owner: self.swap.figures(owner))
                vm.ledger.histogram("swap_latency", self.swap.latency[owner])
            vm.ledger.counters("swap_device", lambda: self.swap.host_figures())
            vm.ledger.counters("kswapd", lambda: self.counts)
            vm.ledger.counters("page_lists", lambda: self.lists.counts)
        self.lists.attach(self.vms)

    def run(self, host: DaemonHost) -> Steps[None]:
        """Take pages whenever memory is short, from now on."""
        if not self.vms:
            return
        while True:
            yield self._called
            self.counts["wakes"] += 1
            yield from self._balance()
            self._called = self.host.env.event()

    def wake(self) -> None:
        """Learn that memory is short, unless enough of it is on its way."""
        if self._failures < RETRIES and not self._called.triggered and not self._coming:
            self._called.succeed()

    def starving(self) -> None:
        """Learn that somebody waits for memory."""
        if self._direct is None:
            self._direct = self.host.env.process(self._reclaim_directly())

    def shrink(self, owner: int, goal: int) -> tuple[int, int]:
        """Take about `goal` pages from one VM (try_to_free_mem_cgroup_pages); -1: it cannot give any just now."""
        vm = next((vm for vm in self.vms if vm.pages.owner == owner), None)
        if vm is None or not vm.able:
            return -1, 0
        stolen = spent = 0
        for priority in range(PRIORITY, -1, -1):
            some, scanned, cycles = self._shrink(priority, goal, [vm], of_cache=0)
            stolen, spent = stolen + some, spent + cycles
            self.counts["direct_scanned"] += scanned
            if stolen >= goal:
                break
        self.counts["direct_stolen"] += stolen
        return stolen, spent

    def page_out(self, vm: LiveVm, numbers: NDArray[np.int64]) -> tuple[int, int]:
        """Take pages of a VM, accessed or not (mm/vmscan.c, reclaim_pages); return how many, and the cycles of it."""
        return self._take(vm, numbers)

    # ---- kswapd

    @property
    def _lacking(self) -> bool:
        return self.host.free + self.swap.writing < self.host.marks.high

    @property
    def _coming(self) -> bool:
        """Whether pages are written, and memory is not short any more when they are."""
        return 0 < self.swap.writing >= self.host.marks.low - self.host.free

    def _balance(self) -> Steps[None]:
        """Take pages until enough is free, or it is of no use (balance_pgdat, kswapd_try_to_sleep)."""
        goal = max(self.host.marks.high, CLUSTER)
        while self._lacking and self._failures < RETRIES:
            priority, total = PRIORITY, 0
            while priority >= 1 and self._lacking:
                aged = sum(self._age(vm) for vm in self._able) if getattr(self.lists, "ages", True) else 0
                vms, enough = (self._in_turn, goal) if self._rotates else (self._able, NO_END)
                stolen, scanned, spent = self._shrink(priority, goal, vms, enough=enough)
                total += stolen
                self.counts["scanned"] += scanned
                self.counts["stolen"] += stolen
                self.counts["cycles"] += spent + aged
                yield self.host.env.background(max(1, spent + aged), frees=True, work=spent + aged)
                if scanned < goal or not stolen:
                    priority -= 1
            self._failures = 0 if total else self._failures + 1

    @property
    def _able(self) -> list[LiveVm]:
        return [vm for vm in self.vms if vm.able]

    def _age(self, vm: LiveVm) -> int:
        return looked(self.costs, vm, self.lists.age(vm))

    # ---- for those who ask

    def _reclaim_directly(self) -> Steps[None]:
        """Take pages while somebody waits for memory."""
        env, vain = self.host.env, 0
        self.counts["stalls"] += 1
        while self.host.starving:
            if self._coming:
                yield self.swap.progress
                continue
            stolen = spent = 0
            for priority in range(PRIORITY, -1, -1):
                some, scanned, cycles = self._shrink(priority, CLUSTER, self._in_turn, enough=CLUSTER)
                stolen, spent = stolen + some, spent + cycles
                self.counts["direct_scanned"] += scanned
                if stolen >= CLUSTER:
                    break
            self.counts["direct_stolen"] += stolen
            yield env.after(max(1, spent))
            if not self.host.starving:
                break
            if stolen:
                self._failures = 0
            if self.swap.writing:  # frames are on their way, unless they cannot be written
                yield self.swap.progress
                vain = 0
                if self.swap.failing < FAILURES:
                    continue
                vain = RETRIES  # the device takes nothing any more
                self.swap.failing = 0
            elif stolen:
                vain = 0
            else:
                vain += 1
            if vain:
                yield env.after(self.killer.pause)
            if vain >= RETRIES and self.host.starving:
                victim = self.killer.victim()
                if victim is None:
                    break
                self.counts["killed"] += victim.alive  # and was not to end anyway
                yield from self.killer.kill(victim)
                vain = 0
        self._direct = None

    @property
    def _rotates(self) -> bool:
        return getattr(self.lists, "rotates", False)

    @property
    def _in_turn(self) -> list[LiveVm]:
        able = self._able
        at = self._next % len(able) if able else 0
        return able[at:] + able[:at]

    # ---- for both

    def _shrink(
        self,
        priority: int,
        goal: int,
        vms: Sequence[LiveVm],
        *,
        enough: int = NO_END,
        of_cache: int | None = None,
    ) -> tuple[int, int, int]:
        """Look at every VM (shrink_node); return the pages taken and looked at, and the cycles of it.

        Parameters
        ----------
        goal : int
            Pages that are wanted of each VM.
        enough : int
            Pages of all together after which no other VM is looked at.
        of_cache : int, optional
            Pages that are wanted of the swap cache; as many, unless it is said.
        """
        stolen = self.swap.shrink_cache(goal if of_cache is None else of_cache)
        scanned, spent = stolen, 0
        self.lists.begin()
        for number, vm in enumerate(vms):
            if stolen >= enough:
                self._next += number
                break
            found = self.lists.scan(vm, priority, goal)
            scanned += found.looked
            spent += looked(self.costs, vm, found)
            if len(found.numbers):
                count, cycles = self._take(vm, found.numbers)
                stolen, spent = stolen + count, spent + cycles
        self.lists.end()
        return stolen, scanned, spent

    def _take(self, vm: LiveVm, numbers: NDArray[np.int64]) -> tuple[int, int]:
        """Take pages; return how many could be taken, and the cycles of it."""
        pages = vm.pages
        wanted = pages.whole(numbers)
        flush = pages.take_each(wanted)
        left = wanted[pages.holds_each(wanted)]
        for number in left.tolist():
            self.lists.keep(vm, number, active=not pages.pinned(number))
        count = len(wanted) - len(left)
        cycles = count * self.costs.reclaim_page + self.swap.collect()
        if flush != NO_FLUSH:
            cycles += vm.forget(flush, times=count if pages.flushes_each else 1)
        return count, cycles


def build(parts: DaemonParts) -> Kswapd:
    """Return the daemon that a scenario asks for."""
    policy = parts.policy(parts.table.policy)
    lists: PageLists = policy if hasattr(policy, "scan") else OneByOne(policy)
    return Kswapd(parts, lists)
