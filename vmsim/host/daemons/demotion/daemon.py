"""kswapd of nodes that have slower memory below them: cold pages go there, and not to a swap device (Linux 6.12).

mm/vmscan.c: shrink_folio_list hands what it would reclaim to demote_folio_list, which moves it to the next slower node
as long as that has free frames above its min watermark (alloc_demote_folio). Which pages, two lists say, of each node
and VM. kswapd of a node is woken when all nodes are below their low watermarks, for a page is allocated elsewhere
before that (get_page_from_freelist), or when a page is to be promoted and the node has no room; it works until the high
watermark is reached, or promo where pages are promoted (pgdat_balanced). TPP keeps a share of the node free besides
(Maruf et al., ASPLOS 2023, section 5.2). Each look at all VMs is one event, after which the time passes that it takes.

What cannot be demoted stays: the host's swap takes pages of any node (`host.swap`), where Linux has the slowest node's
kswapd do so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import simpy

from vmsim.contracts import DaemonHost, LiveVm, Steps, Words
from vmsim.frames.nodes import NodeMarks
from vmsim.host.daemons.demotion.pages import NodeVm
from vmsim.host.daemons.demotion.table import LISTS, Demotion
from vmsim.host.daemons.looking import looked
from vmsim.host.daemons.moving import Mover
from vmsim.host.daemons.parts import DaemonParts
from vmsim.host.memory import HostMemory

__all__ = ["Demoter", "NodeKswapd", "build"]

PRIORITY = 12  # one page in 2**12 is looked at first (DEF_PRIORITY)
CLUSTER = 32  # pages that are taken at least (SWAP_CLUSTER_MAX)
RETRIES = 16  # rounds in vain after which it gives up (MAX_RECLAIM_RETRIES)
_COUNTED = ("pgdemote_kswapd", "pgscan_kswapd", "wakes", "failed", "cycles")


class NodeKswapd:
    """kswapd of one node.

    Parameters
    ----------
    node, to : int
        Whose, and where pages go.
    daemon : Demoter
        What all nodes have in common.
    """

    def __init__(self, node: int, to: int, daemon: Demoter) -> None:
        self.node = node
        self.to = to
        self.daemon = daemon
        self.host = daemon.host
        self.marks: NodeMarks = self.host.nodes.marks[node]
        self.lists: Any = daemon.policy(LISTS)
        self.vms = [NodeVm(vm, node) for vm in daemon.vms]
        self.lists.attach(self.vms)
        self.called: simpy.Event = self.host.env.event()
        size = self.host.nodes.sizes[node]
        self.kept = int(size * daemon.table.scale_factor)

    def wake(self) -> None:
        """Learn that the node is short of memory."""
        if not self.called.triggered and self.host.free_on(self.to) > self.host.nodes.marks[self.to].min:
            self.called.succeed()

    @property
    def goal(self) -> int:
        """Free frames above which it is content."""
        mark = self.marks.promo if self.daemon.promotes else self.marks.high
        return max(mark, self.kept)

    @property
    def lacking(self) -> bool:
        """Whether no more are free (zone_watermark_ok)."""
        return self.host.free_on(self.node) <= self.goal

    def run(self) -> Steps[None]:
        """Demote pages whenever it is woken, from now on."""
        while True:
            yield self.called
            self.daemon.counts["wakes"] += 1
            yield from self._balance()
            self.called = self.host.env.event()

    def _balance(self) -> Steps[None]:
        """Demote pages until enough is free, or it is of no use (balance_pgdat)."""
        goal, failures = max(self.marks.high, CLUSTER), 0
        while self.lacking and failures < RETRIES:
            priority, total = PRIORITY, 0
            while priority >= 1 and self.lacking:
                taken, scanned, spent = self._shrink(priority, goal)
                total += taken
                self.daemon.counts["pgscan_kswapd"] += scanned
                self.daemon.counts["cycles"] += spent
                yield self.host.env.background(max(1, spent), frees=True)
                if scanned < goal or not taken:
                    priority -= 1
            failures = 0 if total else failures + 1

    def _shrink(self, priority: int, goal: int) -> tuple[int, int, int]:
        """Look at every VM (shrink_node); return the pages demoted and looked at, and the cycles of it."""
        taken = scanned = spent = 0
        self.lists.begin()
        for vm in self.vms:
            if not vm.able:
                continue
            spent += looked(self.daemon.costs, vm.vm, self.lists.age(vm))
            found = self.lists.scan(vm, priority, goal)
            scanned += found.looked
            spent += looked(self.daemon.costs, vm.vm, found)
            if len(found.numbers):
                some, cycles = self._demote(vm, found.numbers)
                taken, spent = taken + some, spent + cycles
        self.lists.end()
        return taken, scanned, spent

    def _demote(self, vm: NodeVm, numbers: Words) -> tuple[int, int]:
        """Move pages to slower memory; return how many could be, in frames, and the cycles of it."""
        daemon, pages = self.daemon, vm.vm.pages
        moved = daemon.mover.move(vm.vm, numbers, self.to, least=self.host.nodes.marks[self.to].min)
        for number in moved.busy:
            self.lists.keep(vm, number, active=bool(pages.holds(number) and not pages.pinned(number)))
        for number in moved.left:
            self.lists.keep(vm, number, active=False)
        daemon.of[pages.owner]["pgdemote"] += moved.frames
        daemon.counts["pgdemote_kswapd"] += moved.frames
        daemon.counts["failed"] += len(moved.left)
        return moved.frames, moved.cycles


class Demoter:
    """Demotion of a host.

    Parameters
    ----------
    parts : DaemonParts
        What the scenario says.

    Attributes
    ----------
    promotes : bool
        Whether pages come back: nodes are to have room for them.
    counts : Counter
        As of /proc/vmstat: frames demoted (`pgdemote_kswapd`), pages looked at (`pgscan_kswapd`); `wakes`; pages for
        which there was no room (`failed`); `cycles`.
    of : dict
        By VM: frames demoted (`pgdemote`).
    """

    host: HostMemory
    mover: Mover

    def __init__(self, parts: DaemonParts) -> None:
        self.table: Demotion = parts.table
        self.costs = parts.costs
        self.policy = parts.policy
        self.promotes = False
        self.vms: list[LiveVm] = []
        self.nodes: dict[int, NodeKswapd] = {}
        self.counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
        self.of: dict[int, Counter[str]] = {}

    def register(self, vms: Sequence[Any]) -> None:
        """Have each VM count what was done to it."""
        self.vms = [vm for vm in vms if vm.pages]
        for vm in self.vms:
            counts = self.of[vm.pages.owner] = Counter({"pgdemote": 0})
            vm.ledger.counters("demotion", lambda counts=counts: counts)
            vm.ledger.counters("demotion_host", lambda: self.counts)

    def run(self, host: DaemonHost) -> Steps[None]:
        """Demote pages from now on."""
        if not self.vms:
            return
        self.host = host.host
        self.mover = Mover(self.host, self.costs)
        self.nodes = {
            node: NodeKswapd(node, to, self)
            for node in range(len(self.host.nodes.sizes))
            if (to := self.host.nodes.below(node)) is not None
        }
        self.host.taken = self.look
        self.look()
        for each in self.nodes.values():
            host.env.process(each.run())
        yield from ()

    def look(self) -> None:
        """Wake those whose node is short of memory."""
        short = self.host.free < self.host.marks.low
        for each in self.nodes.values():
            if (short and each.lacking) or self.host.free_on(each.node) < each.kept:
                each.wake()

    def wake(self, node: int) -> None:
        """Learn that a page was to be promoted to a node that has no room (wakeup_kswapd)."""
        if node in self.nodes:
            self.nodes[node].wake()


def build(parts: DaemonParts) -> Demoter:
    """Return the daemon that a scenario asks for."""
    return Demoter(parts)
