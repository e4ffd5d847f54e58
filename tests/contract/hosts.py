"""Hosts whose VMs' pages are disturbed while they run, and what is to be seen of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from itertools import cycle
from random import Random
from typing import Any

import numpy as np
import simpy

from tests.simulation.small import scenario, vm
from vmsim.contracts import NO_FLUSH, Flush, Moment
from vmsim.engine.check.host import check_host, check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.engine.virtual_machine import VirtualMachine
from vmsim.frames.records import State
from vmsim.host.guest_memory import GuestMemory
from vmsim.host.native_memory import NativeMemory
from vmsim.machine.formats import FRAME, LARGE
from vmsim.scenario import Scenario
from vmsim.tables.backing import SHARED

MODES = ("ept", "npt", "shadow", "agile", "vkernel", "paired")
SHADOWS: list[dict[str, Any]] = [
    {},
    {"preset": "plex86"},
    {"preset": "kvm-2007"},
    {"preset": "plex86", "fill": "eager"},
    {"preset": "plex86", "hide": "present-bit"},
]


def pages_of(machine: VirtualMachine, kind: str) -> np.ndarray:
    """Return the guest frames of a kind that have a host frame now; of a program, the frames of its data."""
    assert machine.pages
    if not machine.slot:
        return machine.pages.present()
    root = machine.kernel.root >> 12
    if kind == "root":
        return np.array([root]) if machine.slot.backing[root] & 1 else np.empty(0, np.int64)
    gfns = machine.slot.present()
    if kind == "shadowed":
        return np.asarray(gfns[(machine.monitor.gfns["tables"][gfns] > 0) & (gfns != root)])  # type: ignore[attr-defined]
    state = machine.kernel.frames.frames["state"][gfns]
    wanted = state == (State.TABLE if kind == "table" else State.GUEST)
    return np.asarray(gfns[wanted & (gfns != root)])


def zap(slot: GuestMemory, gfn: int) -> Flush:
    return slot.second.zap(gfn, 1)


def protect(slot: GuestMemory, gfn: int) -> Flush:
    return slot.second.protect(gfn, 1)


def age(slot: Any, gfn: int) -> Flush:
    slot.second.age(gfn, 1, clear=True)
    return Flush(nested=True, linear=True)


def dirty(slot: GuestMemory, gfn: int) -> Flush:
    slot.second.dirty(gfn, 1, clear=True)
    return Flush(nested=True, linear=True)


def take(slot: Any, gfn: int) -> Flush:
    return slot.take(gfn, 1)


def move(slot: Any, gfn: int) -> Flush:
    if slot.host.pins[slot.frame_of(gfn)]:
        return NO_FLUSH
    pfns = slot.host.take(slot.owner, 1, State.GUEST, reserve=8)
    if not len(pfns):
        return NO_FLUSH
    old = np.array([slot.frame_of(gfn)])
    flush = slot.move(gfn, int(pfns[0]))
    slot.host.give(old)
    return flush


def share(slot: Any, gfn: int) -> Flush:
    """Have a page share a frame: with data of whatever VM, but a table only by itself."""
    data = np.array([pfn for pfn in slot.host.shared if not slot.words[pfn << 9 : pfn + 1 << 9].any()])
    if isinstance(slot, NativeMemory):  # whose tables are not shared
        return slot.share(gfn, int(data[-1]) if len(data) else gfn)
    if not len(data) or slot.holds_table(gfn) or slot.host.shared.users(int(data[0]))[0][0].holds_table(gfn):
        return slot.share(gfn, slot.frame_of(gfn))
    return slot.share(gfn, int(data[-1]))


def share_and_move(slot: GuestMemory, gfn: int) -> Flush:
    flush = share(slot, gfn)
    pfns = slot.host.take(slot.owner, 1, State.GUEST, reserve=8)
    if len(pfns) and slot.backing[gfn] & SHARED:
        old = np.array([slot.frame_of(gfn)])
        flush += slot.move(gfn, int(pfns[0]))
        pfns = old
    slot.host.give(pfns)
    return flush


def share_and_take(slot: GuestMemory, gfn: int) -> Flush:
    flush = share(slot, gfn)
    return flush + slot.take(int(slot.shared()[0]), 1) if len(slot.shared()) > 3 else flush


VERBS: dict[str, Callable[[Any, int], Flush]] = {
    "zap": zap,
    "protect": protect,
    "age": age,
    "dirty": dirty,
    "take": take,
    "move": move,
    "share": share,
    "share-move": share_and_move,
    "share-take": share_and_take,
}


class Turns:
    """All verbs, each in its turn, or some; and how often each has been done."""

    def __init__(self, *names: str) -> None:
        self.names = names or tuple(VERBS)
        self.done = Counter[str](dict.fromkeys(self.names, 0))
        self.turn = cycle(self.names)

    def __call__(self, slot: Any, gfn: int) -> Flush:
        self.last = next(self.turn)
        flush = VERBS[self.last](slot, gfn)
        self.done[self.last] += 1
        return flush


def mappings(machine: VirtualMachine) -> dict[tuple[int, int], tuple[int, int]]:
    """Return {(pid, gva): (gfn, level)} of all processes, tables that the host has taken read where they are kept."""
    found: dict[tuple[int, int], tuple[int, int]] = {}

    def look(pid: int, table: int, level: int, gva: int) -> None:
        words = (
            machine.slot.page(table >> 12) if machine.slot else machine.kernel.memory[table >> 3 : (table >> 3) + 512]
        )
        for index in np.flatnonzero(words).tolist():
            entry, here = int(words[index]), gva + (index << (3 + 9 * level))
            if level == 1 or entry & LARGE:
                found[pid, here] = (entry & FRAME & ~LARGE) >> 12, level
            else:
                look(pid, entry & FRAME, level - 1, here)

    for pid, process in machine.kernel.processes.items():
        look(pid, process.space.root, machine.spec.guest_levels, 0)
    return found


def reachable(slot: GuestMemory) -> None:
    """See that processors can reach a guest's pages only where the host says that they lie."""
    for leaf in slot.second.leaves():
        for part in range(1 << leaf.order):
            word = int(slot.backing[leaf.gfn + part])
            assert word & (1 | SHARED), f"frame {leaf.gfn + part} is mapped, and has no page"
            assert not (word & SHARED and leaf.writable), f"frame {leaf.gfn + part} is shared, and may be written to"
            assert slot.frame_of(leaf.gfn + part) == leaf.pfn + part


class Host:
    """A host whose VMs' pages are disturbed while they run."""

    def __init__(self, what: Scenario, verb: str | Turns | None, kind: str, period: int, seed: int = 1) -> None:
        self.seen: dict[str, Any] = {}
        self.done = 0
        self.simulation = Simulation(what, observers=[check_invariants, self._look])
        if verb:
            self.simulation.env.process(
                self._disturb(VERBS[verb] if isinstance(verb, str) else verb, kind, period, Random(seed))
            )
        assert self.simulation.run().ending is None
        self.faults = [machine.kernel.faults for machine in self.simulation.vms]
        self.exits = [machine.monitor.exits for machine in self.simulation.vms]
        self.most = [machine.io.most for machine in self.simulation.vms]

    def _look(self, what: Moment, host: Simulation, machine: VirtualMachine | None) -> None:
        if what is Moment.VM_FINISHED and machine:
            self.seen[machine.spec.name] = mappings(machine)

    def _disturb(
        self, verb: Callable[[Any, int], Flush], kind: str, period: int, random: Random
    ) -> Generator[simpy.Event, Any, None]:
        simulation = self.simulation
        while True:
            yield simulation.env.background(period)
            for machine in simulation.vms:
                if machine.able and machine.pages and len(gfns := pages_of(machine, kind)):
                    machine.forget(verb(machine.pages, int(random.choice(gfns.tolist()))))
                    for each in simulation.vms:
                        if each.able and each.slot:
                            reachable(each.slot)
                    self.done += 1
            check_host(simulation, "a disturbance")


_CALM: dict[str, Host] = {}


def undisturbed(what: Scenario) -> Host:
    """Return a host that nobody disturbs: of each scenario one run, whatever is done to others of it."""
    text = what.canonical()
    if text not in _CALM:
        _CALM[text] = Host(what, None, "", 0)
        del _CALM[text].simulation  # with its memory
    return _CALM[text]


CHURN = {"kind": "churn", "footprint": 24 << 12, "burst": 8 << 12, "rounds": 6}


def small(
    mode: str,
    page: str = "4K",
    other: dict[str, Any] = CHURN,
    base: int | None = None,
    vcpus: int = 1,
    *,
    copied: bool = False,
    **keys: Any,
) -> Scenario:
    """Return a host of two VMs in a mode: one touches pages at random, the other maps and unmaps, or does `other`.

    Their regions are at `base`, and their threads as many as their vCPUs. Their tables can have copies on two sockets.
    """
    if vcpus > 1:
        keys |= {"vcpus": vcpus}
        other = other | {"threads": vcpus, "footprint": max(other["footprint"], vcpus * other.get("burst", 0))}
    pages = {"guest_page": page, "host_page": page} if page != "mixed" else {"host_page": "2M"}
    if mode in ("vkernel", "native"):
        pages.pop("host_page", None)
    keys = {"mode": mode, "memory": "4MiB", **pages, **keys}
    touch = {"kind": "uniform", "footprint": 64 << 12, "accesses": 700, "writes": 0.5, "threads": vcpus}
    host: dict[str, Any] = {"quantum": "20us", "cores": 2, "what_if": True, "memory": "32MiB"}
    if copied:
        keys |= {"numa": {"node": "all", "tables": "replicate"}}
        host |= {"nodes": [{"memory": "16MiB", "cpus": 1}] * 2, "remote_cycles": 100}
    there = {} if base is None else {"base": base}
    return scenario(vm("a", workload=touch | there, **keys), vm("b", **keys) | {"workload": other | there}, **host)
