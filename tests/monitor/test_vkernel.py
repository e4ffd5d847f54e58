"""Does a vkernel's guest see what it would see on bare hardware, and does the host do and charge what it should?"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.monitor.test_shadow_contract import DATA, TABLES, addresses, edits, gva_of, large, place, rights
from tests.monitor.vkernel_world import FRAMES, World
from tests.oracle.bits import ADDRESS, PS, RW, US, P, span
from tests.oracle.shadow import FAULT_P, FAULT_RSVD
from tests.simulation.small import READ, WRITE, Script, run, scenario, touches, vm
from vmsim.base.errors import InputError
from vmsim.monitor.vkernel.check import problems_of_maps
from vmsim.scenario import Scenario

steps = st.one_of(
    st.tuples(st.just("access"), addresses, st.booleans()),
    st.tuples(st.just("access"), addresses, st.booleans()),
    st.tuples(st.just("edit"), st.lists(edits, min_size=1, max_size=5), st.booleans()),
    st.tuples(st.just("root"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("release"), st.integers(0, 1), st.booleans()),
)


def start(*, levels: int = 4, **options: Any) -> World:
    """Return a world with two address spaces of three pages and a large one each, which share all but the root."""
    world = World(TABLES[:2], levels=levels, **options)
    below = TABLES[2:]
    for root in world.roots:
        chain = [root, *below[: levels - 1]]
        world.store(*((a << 12, b << 12 | rights(a, levels)) for a, b in pairwise(chain)))
        world.store((world.bare.place(chain[-2] << 12, large(levels), 2), 1024 << 12 | PS | P | RW | US))
    world.store(*((world.bare.place(chain[-1] << 12, n << 12, 1), DATA[n] << 12 | P | RW | US) for n in range(3)))
    world.load_root(0)
    return world


@pytest.mark.parametrize(
    ("levels", "host_order", "pcid"), [(4, 0, False), (4, 9, True), (5, 0, True), (2, 0, True), (3, 0, True)]
)
@given(program=st.lists(steps, min_size=4, max_size=24))
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_guest_cannot_tell_and_reaches_no_frame_but_its_own(
    levels: int, host_order: int, pcid: bool, program: list[Any]
) -> None:
    world = start(levels=levels, host_order=host_order, pcid=pcid)
    for step, what, flag in program:
        if step == "access":
            world.access(gva_of(what, levels), flag)
        elif step == "edit":
            world.store(*((place(world, gfn, at), value) for gfn, at, value in what))
            world.flush(whole=flag)
        elif step == "root":
            world.load_root(what)
        else:
            world.release(what)
    world.audit()


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_maps_are_not_empty(levels: int) -> None:
    """Or the contract above would hold for nothing."""
    world = start(levels=levels)
    for page in range(3):
        assert world.access(page << 12, write=page == 1) is None
    assert world.access(large(levels), write=True) is None
    assert world.audit() == 4
    world.load_root(1)
    assert world.access(0) is None
    assert world.audit() == 5


def test_the_host_finds_the_entries_of_a_page_in_every_map() -> None:
    """Four pages in one map and one of them in another: to zap that one leaves three; a list that is lost is found."""
    world = start()
    for gva in (0, 1 << 12, 2 << 12, large(4)):
        world.access(gva)
    world.load_root(1)
    world.access(0)
    seen = [world.vkernel.mapped(gfn, 1)[0] for gfn in (*DATA[:3], 1024, 1025)]
    assert seen == [True, True, True, True, False]
    assert [leaf.gfn for leaf in world.vkernel.leaves()] == sorted([*DATA[:3], 1024])
    assert world.audit() == 5
    assert world.vkernel.zap(DATA[0], 1).linear
    assert not world.vkernel.zap(DATA[0], 1).linear
    assert world.audit() == 3
    world.vkernel.entries.heads[DATA[1]] = 0
    assert "the lists of a vkernel's entries" in next(iter(problems_of_maps(world.vkernel, world.host.frames, [])))


@pytest.mark.parametrize("gfn", [FRAMES, FRAMES + 1, 1 << 30, (1 << 40) - 1])
@pytest.mark.parametrize("level", [1, 2])
def test_memory_that_the_guest_has_not_is_a_fault_of_its_own(gfn: int, level: int) -> None:
    """As vm_fault_object refuses a page beyond the object's size."""
    world = start()
    table = TABLES[2:][world.bare.levels - 1 - level]
    gva = 511 * span(level)
    world.store(((table << 12) + 8 * 511, (gfn << 12 if level == 1 else gfn << 21 & ADDRESS) | P | RW | US))
    world.flush()
    if level == 2:
        world.store(((table << 12) + 8 * 511, (1 << 45) | PS | P | RW | US))
    assert world.access(gva) == FAULT_P | 4 | FAULT_RSVD
    assert world.vkernel.exits["REFLECT"] == 1
    assert world.audit() == 0


def test_a_read_enters_a_clean_page_read_only_and_the_first_write_faults_again() -> None:
    world = start()
    exits = world.vkernel.exits
    for number, write in enumerate([False, False, True, True, False]):
        world.access(0, write)
        assert exits["VPAGE_FILL"] == [1, 1, 2, 2, 2][number]
    world.access(1 << 12, write=True)  # a write at once makes one fault of it
    world.access(1 << 12)
    assert exits["VPAGE_FILL"] == 3


def test_a_large_page_of_the_guest_is_entered_page_by_page() -> None:
    world = start(host_order=9)
    for page in (0, 1, 511):
        world.access(0x20_0000 + (page << 12), write=True)
    assert world.vkernel.exits["VPAGE_FILL"] == 3
    assert world.audit() == 3


def test_tables_of_a_map_go_back_when_they_are_empty() -> None:
    world = start()
    pooled = len(world.pool.pages)
    for gva in (0, 1 << 12, 0x20_0000):
        world.access(gva)
    assert world.vkernel.frames_held == 1 + 4  # root, two upper tables, one for each 2 MiB
    world.drive(world.vkernel.invalidate(world.vcpu, 0, 0xFFF))
    assert world.vkernel.frames_held == 5
    world.drive(world.vkernel.invalidate(world.vcpu, 0x1000, 0x1FFF))
    assert world.vkernel.frames_held == 4
    world.flush()
    assert world.vkernel.frames_held == 1
    assert len(world.pool.pages) >= pooled + 4


@pytest.mark.parametrize(
    ("first", "last", "calls"),
    [(0, 0xFFF, 1), (0x5000, 0x7FFF, 3), (0, 0x1F_FFFF, 1), (0x1F_F000, 0x40_0FFF, 3), (0, 0x3FFF_FFFF, 512)],
)
def test_each_page_is_a_call_and_each_whole_table_one(first: int, last: int, calls: int) -> None:
    world = start()
    before = world.vcpu.now
    world.drive(world.vkernel.invalidate(world.vcpu, first, last))
    costs = world.vkernel.costs
    assert world.vkernel.exits["INVAL"] == calls
    assert world.vcpu.now - before == calls * costs.vkernel_call


def costs_of(steps: list[Any], **keys: Any) -> tuple[Any, Any]:
    what = scenario(vm(mode="vkernel", **keys))
    return what.cpu.cost, run(what, [Script(steps)], every=5_000)[1].vms[0]


def test_what_a_demand_fault_costs_is_in_the_table_of_costs() -> None:
    """A fault is handed to the guest's kernel, and made again; then the host finds the page and enters it."""
    cost, one = costs_of([("touch", 0, WRITE)], populate="eager")
    _, two = costs_of([("touch", 0, WRITE), ("unmap", 0, 1), ("touch", 0, WRITE)], populate="eager")
    walk = 4 * cost.vkernel_walk_level
    entered = cost.violation_entry + cost.violation_rmap
    tables = 3 * (cost.violation_pool + cost.table_page)
    fill = cost.vkernel_fault + walk + entered + tables
    assert one.exits["VPAGE_FILL"] == (1, fill)
    assert two.exits["VPAGE_FILL"] == (2, 2 * fill)  # the map had become empty, and its tables had gone
    assert two.exits["REFLECT"] == (1, cost.vkernel_fault + walk + cost.vkernel_reflect)
    assert two.exits["SYSCALL"] == (1, cost.vkernel_reflect)
    assert two.exits["INVAL"] == (1, cost.vkernel_call + cost.vkernel_remove)
    assert sum(cycles for _, cycles in two.exits.values()) == two.cycles["exit"]


def test_the_hardware_walks_the_maps_alone() -> None:
    _, figures = costs_of(touches(range(16), WRITE))
    assert figures.counters["nested_walks"] == 0
    assert figures.refs[:, 1:].sum() == 0


@pytest.mark.parametrize(("pcid", "again"), [(None, 11), (True, 1)])
def test_going_to_the_guests_kernel_empties_the_tlb_unless_the_host_uses_pcids(pcid: bool | None, again: int) -> None:
    """Ten pages are in the TLB; a fault on another is handed to the kernel. Natively the ten would hit."""
    warm = [*touches(range(10), WRITE), ("touch", 11, WRITE), *touches(range(10))]
    keys = {"populate": "eager", "workload": {"footprint": 16 * 4096}} | ({"pcid": pcid} if pcid else {})
    misses = [
        costs_of([*warm, *more, *touches(range(10)), ("touch", 11, READ)], **keys)[1].counters["l2_tlb_misses"]
        for more in ([], [("unmap", 11, 1), ("touch", 11, WRITE)])
    ]
    assert misses[1] - misses[0] in (again + 1, again + 2)  # and the page itself, up to twice


def test_tables_of_the_maps_are_counted_as_the_vms() -> None:
    """Pages of one region: the four tables of its map, and no others: no table leads to the guest's memory."""
    pages = touches(range(16), WRITE)
    _, figures = costs_of(pages)
    nested = run(scenario(vm(mode="ept")), [Script(pages)])[1].vms[0]
    assert figures.memory["table"] == 4
    assert figures.memory["guest"] == nested.memory["guest"]


def test_address_spaces_keep_their_maps_over_switches() -> None:
    turn = [step for pid in (1, 2, 3) for step in (("switch", pid), ("touch", pid, WRITE))]
    fills = [costs_of(turn * times)[1].exits["VPAGE_FILL"][0] for times in (1, 5)]
    assert fills == [3, 3]


def test_vms_tags_mean_nothing_to_a_process() -> None:
    wrong = scenario(vm(mode="vkernel")).to_toml().replace('mode = "vkernel"', 'mode = "vkernel"\ntags = "vpid"')
    with pytest.raises(InputError, match="mode vkernel has no VM entries"):
        Scenario.from_toml(wrong)
    assert scenario(vm(mode="ept", tags="vpid")).with_mode("vkernel").vms[0].tags is None
    assert [scenario(vm(mode=mode)).vms[0].pcid for mode in ("ept", "vkernel")] == [True, False]
