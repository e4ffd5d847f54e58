"""May the host do anything to the memory of a living VM, in every mode, without the guest's being able to tell?

The verbs are those of `SecondMmu` and `GuestMemory`. Each is done again and again while a VM runs, to a page of one
kind: its data, its page tables, the root of its tables. Every invariant is checked on the way, and at the end the
guest's tables are those of a run that nobody disturbed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.contract.hosts import MODES, SHADOWS, VERBS, Host, pages_of, small, undisturbed
from vmsim.contracts import NO_FLUSH, Flush
from vmsim.engine.simulation import Simulation
from vmsim.host.guest_memory import GuestMemory

KINDS = ["table", pytest.param("data", marks=pytest.mark.slow)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data", "table", "root"])
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


BALLOON = {"size": "128KiB", "message": 8, "schedule": [["60us", 0], ["150us", "256KiB"]]}


@pytest.mark.parametrize("verb", ["take", "move", "share"])
@pytest.mark.parametrize("mode", MODES)
def test_nor_while_a_balloon_takes_pages_and_gives_them_back(mode: str, verb: str) -> None:
    """Which frames its kernel has left when it wants some depends on when; which pages it maps does not."""
    what = small(mode, balloon=BALLOON).replace(**{"host.cpu_override": {"cost": {"balloon_message": 20_000}}})
    calm, host = undisturbed(what), Host(what, verb, "data", 40_009)
    assert host.done > 5
    assert all(machine.balloon and machine.balloon.frames for machine in host.simulation.vms)
    assert {name: {*seen} for name, seen in host.seen.items()} == {name: {*seen} for name, seen in calm.seen.items()}


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
@pytest.mark.parametrize("kind", ["data", "table", "root"])
@pytest.mark.parametrize("page", ["2M", "mixed"])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("mode", MODES)
def test_nor_with_large_pages(mode: str, verb: str, page: str, kind: str) -> None:
    host = Host(small(mode, page), verb, kind, 40_009)
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
@pytest.mark.parametrize("kind", KINDS)
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
    calm, host = undisturbed(small(mode, other=DISK)), Host(small(mode, other=DISK), verb, "data", 27_001)
    assert host.done > 20
    assert host.seen == calm.seen
    assert host.most == calm.most


FETCHING = {"kind": "compile", "footprint": "96KiB", "processes": 4, "text": "64KiB", "parent": "64KiB", "work": 20}
HARD: dict[str, Any] = {"nx_split": True, "nx_recovery_period": "300us", "other": FETCHING}


@pytest.mark.parametrize(
    "keys",
    [
        {"dirty_log": LOG},
        {**HARD, "page": "mixed"},
        {**HARD, "page": "mixed", "dirty_log": LOG},
        {**HARD, "page": "mixed", "dirty_log": LOG, "mode": "npt"},
        {**HARD, "page": "mixed", "mode": "agile", "dirty_log": LOG},
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
    given = {"mode": "ept", **keys}
    calm, host = undisturbed(small(**given)), Host(small(**given), verb, "data", 40_009)
    assert host.done > 5
    assert host.seen == calm.seen
    assert host.faults == calm.faults
    if "nx_split" in keys and "dirty_log" not in keys:
        assert calm.exits[1]["NX_SPLIT"] > 0


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
