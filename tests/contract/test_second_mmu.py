"""May the host do anything to the memory of a living VM, in every mode, without the guest's being able to tell?

The verbs are those of `SecondMmu` and `GuestMemory`. Each is done again and again while a VM runs, to a page of one
kind: its data, its page tables, the root of its tables. Every invariant is checked on the way, and at the end the
guest's tables are those of a run that nobody disturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from random import Random
from typing import Any

import numpy as np
import pytest
import simpy

from tests.simulation.small import scenario, vm
from vmsim.contracts import NO_FLUSH, Flush, Moment
from vmsim.engine.check.host import check_host, check_invariants
from vmsim.engine.simulation import Simulation
from vmsim.engine.virtual_machine import VirtualMachine
from vmsim.frames.buddy import State
from vmsim.host.guest_memory import GuestMemory
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
    """Return the guest frames of a kind that have a host frame now."""
    assert machine.slot
    root = machine.kernel.root >> 12
    if kind == "root":
        return np.array([root]) if machine.slot.backing[root] & 1 else np.empty(0, np.int64)
    gfns = machine.slot.present()
    state = machine.kernel.frames.frames["state"][gfns]
    wanted = state == (State.TABLE if kind == "table" else State.GUEST)
    return np.asarray(gfns[wanted & (gfns != root)])


def zap(slot: GuestMemory, gfn: int) -> Flush:
    return slot.second.zap(gfn, 1)


def protect(slot: GuestMemory, gfn: int) -> Flush:
    return slot.second.protect(gfn, 1)


def age(slot: GuestMemory, gfn: int) -> Flush:
    slot.second.age(gfn, 1, clear=True)
    return Flush(nested=True, linear=True)


def dirty(slot: GuestMemory, gfn: int) -> Flush:
    slot.second.dirty(gfn, 1, clear=True)
    return Flush(nested=True, linear=True)


def take(slot: GuestMemory, gfn: int) -> Flush:
    return slot.take(gfn, 1)


def move(slot: GuestMemory, gfn: int) -> Flush:
    if slot.host.pins[slot.frame_of(gfn)]:
        return NO_FLUSH
    pfns = slot.host.take(slot.owner, 1, State.GUEST, reserve=8)
    if not len(pfns):
        return NO_FLUSH
    old = np.array([slot.frame_of(gfn)])
    flush = slot.move(gfn, int(pfns[0]))
    slot.host.give(old)
    return flush


def share(slot: GuestMemory, gfn: int) -> Flush:
    """Have a page share a frame: with data of whatever VM, but a table only by itself."""
    data = np.array([pfn for pfn in slot.host.shared if not slot.words[pfn << 9 : pfn + 1 << 9].any()])
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


VERBS: dict[str, Callable[[GuestMemory, int], Flush]] = {
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


def mappings(machine: VirtualMachine) -> dict[tuple[int, int], tuple[int, int]]:
    """Return {(pid, gva): (gfn, level)} of all processes, tables that the host has taken read where they are kept."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    assert machine.slot

    def look(slot: GuestMemory, pid: int, table: int, level: int, gva: int) -> None:
        words = slot.page(table >> 12)
        for index in np.flatnonzero(words).tolist():
            entry, here = int(words[index]), gva + (index << (3 + 9 * level))
            if level == 1 or entry & LARGE:
                found[pid, here] = (entry & FRAME & ~LARGE) >> 12, level
            else:
                look(slot, pid, entry & FRAME, level - 1, here)

    for pid, process in machine.kernel.processes.items():
        look(machine.slot, pid, process.space.root, machine.spec.guest_levels, 0)
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

    def __init__(self, what: Scenario, verb: str | None, kind: str, period: int, seed: int = 1) -> None:
        self.seen: dict[str, Any] = {}
        self.done = 0
        self.simulation = Simulation(what, observers=[check_invariants, self._look])
        if verb:
            self.simulation.env.process(self._disturb(VERBS[verb], kind, period, Random(seed)))
        assert self.simulation.run().ending is None
        self.faults = [machine.kernel.faults for machine in self.simulation.vms]
        self.most = [machine.io.most for machine in self.simulation.vms]

    def _look(self, what: Moment, host: Simulation, machine: VirtualMachine | None) -> None:
        if what is Moment.VM_FINISHED and machine:
            self.seen[machine.spec.name] = mappings(machine)

    def _disturb(
        self, verb: Callable[[GuestMemory, int], Flush], kind: str, period: int, random: Random
    ) -> Generator[simpy.Event, Any, None]:
        simulation = self.simulation
        while True:
            yield simulation.env.background(period)
            for machine in simulation.vms:
                if machine.able and machine.slot and len(gfns := pages_of(machine, kind)):
                    machine.forget(verb(machine.slot, int(random.choice(gfns.tolist()))))
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
    **keys: Any,
) -> Scenario:
    """Return a host of two VMs in a mode: one touches pages at random, the other maps and unmaps, or does `other`.

    Their regions are at `base`, and their threads as many as their vCPUs.
    """
    if vcpus > 1:
        keys |= {"vcpus": vcpus}
        other = other | {"threads": vcpus}
    pages = {"guest_page": page, "host_page": page} if page != "mixed" else {"host_page": "2M"}
    if mode == "vkernel":
        pages.pop("host_page", None)
    keys = {"mode": mode, "memory": "4MiB", **pages, **keys}
    touch = {"kind": "uniform", "footprint": 64 << 12, "accesses": 700, "writes": 0.5, "threads": vcpus}
    host = {"quantum": "20us", "cores": 2, "what_if": True, "memory": "32MiB"}
    there = {} if base is None else {"base": base}
    return scenario(vm("a", workload=touch | there, **keys), vm("b", **keys) | {"workload": other | there}, **host)


KINDS = ["table", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("data", "root"))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("mode", MODES)
def test_the_guest_cannot_tell(mode: str, verb: str, kind: str) -> None:
    calm, host = undisturbed(small(mode)), Host(small(mode), verb, kind, 40_009)
    assert host.done > 5
    assert host.seen == calm.seen
    assert host.faults == calm.faults


@pytest.mark.parametrize("mode", MODES)
def test_nor_where_its_page_tables_go_to_a_swap_device(mode: str) -> None:
    """One in memory: a disk returns tables more slowly than they are taken here, and no walk would end."""
    calm = undisturbed(small(mode))
    host = Host(small(mode).replace(**{"host.swap": {"device": "zram"}}), "take", "table", 40_009)
    assert host.done > 5
    assert host.seen == calm.seen
    assert host.faults == calm.faults


@pytest.mark.parametrize("mode", MODES)
def test_many_pages_are_looked_at_as_each_of_them_is(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(slot: GuestMemory, gfn: int) -> Flush:
        gfns, second = slot.present(), slot.second
        each = [bool(second.age(number, 1, clear=False)[0]) for number in gfns.tolist()]
        assert second.age_each(gfns, clear=False).tolist() == each
        there = {leaf.gfn for leaf in second.leaves()}
        mapped = second.mapped(0, slot.numbers)
        assert {*np.flatnonzero(mapped).tolist()} >= there & {*gfns.tolist()}
        seen.extend(each)
        assert second.age_each(gfns, clear=True).tolist() == each
        assert not second.age_each(gfns, clear=False).any()
        return Flush(nested=True, linear=True)

    seen: list[bool] = []
    monkeypatch.setitem(VERBS, "look", look)
    assert Host(small(mode), "look", "data", 40_009).done > 5
    assert {*seen} == {True, False}


PAIRS = [("take", "table"), ("move", "data")]
MORE = [(verb, kind) for verb in VERBS for kind in ("table", "data", "root") if (verb, kind) not in PAIRS]


@pytest.mark.parametrize(
    ("verb", "kind", "vcpus"),
    [
        *((*pair, 2 + number) for number, pair in enumerate(PAIRS)),
        *(pytest.param(*pair, 2 + number % 3, marks=pytest.mark.slow) for number, pair in enumerate(MORE)),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_nor_on_several_vcpus(mode: str, verb: str, kind: str, vcpus: int) -> None:
    """Which frame each page gets depends on who is first; which pages there are in the end does not."""
    calm, host = undisturbed(small(mode, vcpus=vcpus)), Host(small(mode, vcpus=vcpus), verb, kind, 40_009)
    assert host.done > 5
    assert {name: {*seen} for name, seen in host.seen.items()} == {name: {*seen} for name, seen in calm.seen.items()}


@pytest.mark.slow
@pytest.mark.parametrize("page", ["2M", "mixed"])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("mode", MODES)
def test_nor_with_large_pages(mode: str, verb: str, page: str) -> None:
    host = Host(small(mode, page), verb, "data", 40_009)
    calm = undisturbed(small(mode, page))
    assert host.done > 5
    assert host.seen == calm.seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data", "table", "root"])
@pytest.mark.parametrize("verb", ["zap", "take", "share"])
@pytest.mark.parametrize("shadow", SHADOWS, ids=str)
def test_nor_however_a_shadow_is_kept(shadow: dict[str, Any], verb: str, kind: str) -> None:
    calm = undisturbed(small("shadow", shadow=shadow))
    host = Host(small("shadow", shadow=shadow), verb, kind, 40_009)
    assert host.done > 5
    assert host.seen == calm.seen
    assert host.faults == calm.faults


LOG = {"method": "write-protect", "every": "200us"}
OLD = {"base": 0x1000_0000}  # a 32-bit program's


@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        ("shadow", {"dirty_log": LOG}),
        ("shadow", {"dirty_log": LOG, "guest_levels": 2, "vcpus": 2, **OLD}),
        ("vkernel", {"guest_levels": 2, "vcpus": 2, **OLD}),
        ("shadow", {"dirty_log": LOG, "shadow": {"preset": "plex86"}, "page": "mixed"}),
        ("shadow", {"dirty_log": LOG, "guest_levels": 2, **OLD}),
        ("shadow", {"guest_levels": 2, **OLD}),
        ("agile", {"dirty_log": LOG}),
        ("agile", {"dirty_log": LOG, "page": "mixed", "vcpus": 2}),
        ("agile", {"guest_levels": 3, **OLD}),
        ("shadow", {"guest_levels": 3, "shadow": {"preset": "plex86", "fill": "eager"}, **OLD}),
        ("vkernel", {"guest_levels": 2, **OLD}),
        ("vkernel", {"guest_levels": 3, **OLD}),
        ("npt", {"dirty_log": LOG, "page": "mixed"}),
    ],
    ids=str,
)
@pytest.mark.parametrize("verb", ["take", "zap", "share"])
@pytest.mark.parametrize("kind", KINDS[:2])
def test_nor_in_old_formats_and_under_logs(mode: str, keys: dict[str, Any], verb: str, kind: str) -> None:
    calm, host = undisturbed(small(mode, **keys)), Host(small(mode, **keys), verb, kind, 40_009)
    assert host.done > 5
    if keys.get("vcpus", 1) > 1:
        assert {name: {*seen} for name, seen in host.seen.items()} == {
            name: {*each} for name, each in calm.seen.items()
        }
        return
    assert host.seen == calm.seen
    assert host.faults == calm.faults


DISK = {"kind": "disk", "footprint": 64 << 12, "block": 8 << 12, "reads": 20, "device": "30us", "work": 8}


@pytest.mark.parametrize("verb", ["take", "move", "share"])
@pytest.mark.parametrize("mode", MODES)
def test_nor_do_its_devices(mode: str, verb: str) -> None:
    """Buffers are backed when a request is made, and stay where they are until it is done."""
    calm, host = undisturbed(small(mode, other=DISK)), Host(small(mode, other=DISK), verb, "data", 9_001)
    assert host.done > 20
    assert host.seen == calm.seen
    assert host.most == calm.most


@pytest.mark.parametrize(
    "keys",
    [
        {"dirty_log": LOG},
        {"nx_split": True, "nx_recovery_period": "300us", "page": "mixed"},
        {"dirty_log": LOG, "nx_split": True, "nx_recovery_period": "300us", "page": "mixed"},
        {"dirty_log": {"method": "pml", "every": "200us"}},
        {"kernel_accesses": "direct-map"},
        {"tags": "none"},
        {"fill_chunk": 8},
        {"guest_levels": 3, "base": 0x1000_0000},
    ],
    ids=lambda keys: "-".join(keys),
)
@pytest.mark.parametrize("verb", ["take", "zap", "share"])
def test_nor_with_whatever_else_a_monitor_does(verb: str, keys: dict[str, Any]) -> None:
    calm, host = undisturbed(small("ept", **keys)), Host(small("ept", **keys), verb, "data", 40_009)
    assert host.done > 5
    assert host.seen == calm.seen
    assert host.faults == calm.faults


@pytest.mark.parametrize("mode", MODES)
def test_what_was_written_is_what_comes_back(mode: str) -> None:
    """Words of a guest's root table, taken and brought back by hand, are what they were."""
    simulation = Simulation(small(mode))
    for machine in simulation.vms:
        machine.populate()
    for machine in simulation.vms:
        assert machine.slot
        root = machine.kernel.root >> 12
        held = machine.slot.page(root).copy()
        assert held.any()
        machine.forget(machine.slot.take(root, 1))
        assert not machine.slot.backing[root] & 1
        assert (machine.slot.page(root) == held).all()
        assert (machine.slot.taken, machine.slot.returned) == (1, 0)


def test_a_pinned_page_is_left_alone() -> None:
    simulation = Simulation(small("ept"))
    machine = simulation.vms[0]
    machine.populate()
    assert machine.slot
    gfn = int(pages_of(machine, "data")[0])
    pfn = np.array([machine.slot.frame_of(gfn)])
    simulation.host.pin(pfn)
    assert machine.slot.take(gfn, 1) == NO_FLUSH
    assert machine.slot.frame_of(gfn) == pfn[0]
    assert machine.slot.taken == 0
