"""Does each way of shadowing take the exits that its source says?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.monitor.world import World, figures_of
from tests.oracle.bits import PS, RW, US, A, D, P
from tests.simulation.small import PAGE, scenario, vm
from vmsim.engine.run import simulate
from vmsim.monitor.shadow.mode import SHADOW_PRESETS, ShadowSpec

RIGHTS = P | RW | US
ROOT, PDPT, PD, PT, OTHER_ROOT, OTHER_PT = 8, 9, 10, 11, 12, 13
DATA = 600


def world_of(spec: ShadowSpec, pages: int = 0, **keys: Any) -> World:
    """Return a guest with one chain of tables and so many pages mapped at its start, not accessed yet by anybody."""
    world = World(spec, **keys)
    world.store((ROOT << 12, PDPT << 12 | RIGHTS), (PDPT << 12, PD << 12 | RIGHTS), (PD << 12, PT << 12 | RIGHTS))
    if pages:
        world.store(*((entry(n), DATA + n << 12 | RIGHTS | A | D) for n in range(pages)))
    world.load_root(ROOT << 12)
    return world


def entry(number: int, table: int = PT) -> int:
    return (table << 12) + 8 * number


def counted(world: World, steps: Any) -> dict[str, int]:
    """Return the exits that some steps take."""
    world.shadow.exits.clear()
    steps()
    return world.exits


def demand_page(world: World, number: int) -> None:
    """Touch a page that is not there, as a kernel that maps it expects."""
    assert world.access(number * PAGE, write=True) == US | RW  # not present, user, write
    world.store((entry(number), DATA + number << 12 | RIGHTS | A | D))
    assert world.access(number * PAGE, write=True) is None


@pytest.mark.parametrize(("fill", "exits"), [("lazy", 3), ("eager", 2)])
def test_demand_paging_takes_three_exits_and_two_where_the_store_updates_the_shadow(fill: str, exits: int) -> None:
    """Avi Kivity, "KVM: Update shadow pte on write to guest pte" (Linux commit 0028425f647b, 2007)."""
    world = world_of(SHADOW_PRESETS["kvm-2007"].model_copy(update={"fill": fill}))
    demand_page(world, 0)  # the tables get their shadows
    taken = counted(world, lambda: [demand_page(world, n) for n in range(1, 101)])
    assert sum(taken.values()) == exits * 100
    assert taken.get("SHADOW_FILL", 0) == (exits - 2) * 100
    assert taken["TRUE_FAULT"] == taken["PT_WRITE"] == 100


def test_with_unsync_only_the_first_store_to_a_table_exits() -> None:
    world = world_of(SHADOW_PRESETS["kvm"])
    demand_page(world, 0)
    taken = counted(world, lambda: [demand_page(world, n) for n in range(1, 101)])
    assert taken == {"TRUE_FAULT": 100, "SHADOW_FILL": 100, "PT_WRITE": 1}


@pytest.mark.parametrize("preset", ["kvm-2007", "plex86"])
def test_plex86_pays_for_loads_and_stores_and_kvm_for_stores(preset: str) -> None:
    world = world_of(SHADOW_PRESETS[preset], 8)
    world.access(0)

    def edit() -> None:
        world.load(entry(0), entry(1), entry(2))
        world.store((entry(0), DATA + 50 << 12 | RIGHTS | A), (entry(1), 0))

    stepped = {"PT_READ": 3, "DEBUG": 5} if preset == "plex86" else {}
    assert counted(world, edit) == {"PT_WRITE": 2, **stepped}


@pytest.mark.parametrize("used", [0, 5, 40])
@pytest.mark.parametrize("fill", ["lazy", "eager"])
def test_eager_fills_exactly_what_is_mapped_and_lazy_what_is_used(fill: str, used: int) -> None:
    world = world_of(SHADOW_PRESETS["plex86"].model_copy(update={"fill": fill}), 40)
    for number in range(used):
        world.access(number * PAGE)
    filled = figures_of(world.shadow)["shadow", "filled"]
    assert filled == world.audit() == (40 if fill == "eager" else used)
    assert world.exits.get("SHADOW_FILL", 0) == (0 if fill == "eager" else used)


@pytest.mark.parametrize(("chunk", "fills"), [(1, 96), (8, 12), (512, 1)])
def test_a_chunk_of_mappings_is_brought_in_at_a_fault(chunk: int, fills: int) -> None:
    world = world_of(ShadowSpec(), 96, chunk=chunk)
    taken = counted(world, lambda: [world.access(n * PAGE, write=True) for n in range(96)])
    assert taken == {"SHADOW_FILL": fills}
    assert world.audit() == 96


@pytest.mark.parametrize("preset", ["kvm-2007", "plex86"])
@pytest.mark.parametrize("fill", ["lazy", "eager"])
def test_a_store_that_traps_changes_the_shadow_too(preset: str, fill: str) -> None:
    world = world_of(SHADOW_PRESETS[preset].model_copy(update={"fill": fill}), 2)
    for number in range(2):
        world.access(number * PAGE, write=True)
    world.store((entry(0), 0), (entry(1), DATA + 50 << 12 | RIGHTS | A | D))
    world.invalidate(0, 2 * PAGE - 1)
    assert world.audit() == (1 if fill == "eager" else 0)
    assert world.access(0) == US
    assert world.access(PAGE, write=True) is None
    assert world.audit() == 1


@pytest.mark.parametrize("flood", [0, 1, 3, 7])
def test_a_flood_of_stores_ends_the_shadow_of_a_table(flood: int) -> None:
    world = world_of(ShadowSpec(trap="emulate", write_flood=flood), 2)
    world.access(0)
    taken = counted(world, lambda: world.store(*((entry(n), DATA + n << 12 | RIGHTS) for n in range(10, 20))))
    assert taken == {"PT_WRITE": flood or 10}
    assert (PT in world.guarded_frames()) == (flood == 0)
    world.audit()


@pytest.mark.parametrize("flood", [0, 1, 3, 7])
def test_kvm_looks_for_floods_in_tables_above_the_lowest_alone(flood: int) -> None:
    """arch/x86/kvm/mmu/mmu.c: `detect_write_flooding` skips sp->role.level 1, which `mmu_try_to_unsync_pages` frees."""
    world = world_of(SHADOW_PRESETS["kvm"].model_copy(update={"write_flood": flood}), 2)
    world.access(0)
    lowest = counted(world, lambda: world.store(*((entry(n), DATA + n << 12 | RIGHTS) for n in range(10, 20))))
    assert lowest == {"PT_WRITE": 1}
    assert figures_of(world.shadow)["shadow", "dropped"] == 0
    upper = counted(world, lambda: world.store(*((entry(n, PD), OTHER_PT << 12 | RIGHTS) for n in range(10, 20))))
    assert upper == {"PT_WRITE": flood or 10}
    assert (PD in world.guarded_frames()) == (flood == 0)
    world.audit()


def test_kvm_is_unsync_and_was_not_in_2007() -> None:
    assert SHADOW_PRESETS["kvm"] == ShadowSpec()
    changed = SHADOW_PRESETS["kvm"].model_dump().items() - SHADOW_PRESETS["kvm-2007"].model_dump().items()
    assert dict(changed) == {"trap": "unsync"}
    assert SHADOW_PRESETS["kvm-2007"].write_flood == 3  # kvm_mmu_pte_write: last_pt_write_count >= 3


@pytest.mark.parametrize(("preset", "stores"), [("kvm", 1 + 3 + 3 + 3), ("kvm-2007", 4 * 3), ("plex86", 4 * 512)])
def test_frames_that_were_tables_are_written_over_until_nobody_guards_them(preset: str, stores: int) -> None:
    """The first store leaves a lowest table to the guest; the third ends the shadow of others; plex86 steps 512."""
    world = world_of(SHADOW_PRESETS[preset].model_copy(update={"on_cr3": "cache"}), 1)
    world.access(0)
    world.load_root(OTHER_ROOT << 12)
    taken = counted(world, lambda: [world.clear(gfn) for gfn in (PT, PD, PDPT, ROOT)])
    assert taken["PT_WRITE"] == stores
    world.audit()


@pytest.mark.parametrize("how", ["flush", "cache"])
def test_a_cached_shadow_is_there_when_its_root_comes_back(how: str) -> None:
    world = world_of(ShadowSpec(on_cr3=how), 20)
    world.store(entry(0, OTHER_ROOT) and (OTHER_ROOT << 12, PDPT << 12 | RIGHTS))
    for number in range(20):
        world.access(number * PAGE)

    def switch() -> None:
        world.load_root(OTHER_ROOT << 12)
        world.load_root(ROOT << 12)
        for number in range(20):
            world.access(number * PAGE)

    assert counted(world, switch) == {"CR3": 2, **({"SHADOW_FILL": 20} if how == "flush" else {})}


def test_tables_out_of_step_are_brought_into_step_by_invlpg_and_by_cr3() -> None:
    world = world_of(ShadowSpec(trap="unsync"), 4)
    for number in range(4):
        world.access(number * PAGE)
    world.store((entry(0), DATA + 100 << 12 | RIGHTS | A), (entry(1), DATA + 101 << 12 | RIGHTS | A))
    assert PT not in world.guarded_frames()
    world.invalidate(0, PAGE - 1)
    assert PT not in world.guarded_frames()  # one page is in step; the table is still the guest's
    world.load_root(ROOT << 12)
    assert PT in world.guarded_frames()
    assert world.audit() == 2
    assert counted(world, lambda: world.access(0)) == {"SHADOW_FILL": 1}


def test_a_large_page_that_the_host_backs_small_is_split() -> None:
    world = world_of(ShadowSpec(), host_order=0)
    world.store(((PD << 12) + 8, 1024 << 12 | PS | RIGHTS))
    assert [world.access(0x20_0000 + n * PAGE) for n in (0, 7, 511)] == [None] * 3
    assert {level for _, level, _, _ in world.leaves()} == {1}
    assert world.audit() == 3
    whole = world_of(ShadowSpec(), host_order=9)
    whole.store(((PD << 12) + 8, 1024 << 12 | PS | RIGHTS))
    assert [whole.access(0x20_0000 + n * PAGE) for n in (0, 7, 511)] == [None] * 3
    assert [level for _, level, _, _ in whole.leaves()] == [2]


@pytest.mark.parametrize("host_order", [0, 9])
def test_accessed_and_dirty_of_a_large_page_are_the_guests(host_order: int) -> None:
    for spec in SHADOW_PRESETS.values():
        world = world_of(spec, host_order=host_order)
        place = (PD << 12) + 8
        world.store((place, 1024 << 12 | PS | RIGHTS))
        for write, marks in ((False, A), (True, A | D)):
            world.access(0x20_0000 + 5 * PAGE, write)
            assert world.load(place) == [1024 << 12 | PS | RIGHTS | marks]


@pytest.mark.parametrize("how", ["load", "root", "store beside", "store above", "evict"])
@pytest.mark.parametrize("host_order", [0, 9])
@pytest.mark.parametrize("large", [False, True])
def test_what_the_hardware_has_marked_is_not_lost_with_the_shadow(how: str, host_order: int, large: bool) -> None:
    """D is set by the hardware alone: the page was read before it was written, so the write took no exit."""
    world = world_of(SHADOW_PRESETS["plex86"], host_order=host_order)
    place, value, gva = entry(0), DATA << 12 | RIGHTS, 0
    if large:
        place, value, gva = (PD << 12) + 8, 1024 << 12 | PS | RIGHTS, 0x20_0000
    world.store((place, value))
    world.access(gva)
    assert counted(world, lambda: world.access(gva, write=True)) == {}
    if how == "root":
        world.load_root(ROOT << 12)
    elif how == "store beside":
        world.store((place + 8 * 5, 0))
    elif how == "store above":
        world.store((PDPT << 12, 0))
        world.flush()
    elif how == "evict":
        world.load_root(OTHER_ROOT << 12)
    assert world.load(place) == [value | A | D]


@pytest.mark.parametrize("fill", ["lazy", "eager"])
@pytest.mark.parametrize("host_order", [0, 9])
@pytest.mark.parametrize("large", [False, True])
def test_the_entries_on_the_way_to_a_page_stay_accessed_when_their_shadow_is_filled_again(
    fill: str, host_order: int, large: bool
) -> None:
    """SDM vol. 3A §5.8: a translation sets A in each entry that it uses. CR3's load comes before the kernel's look."""
    spec = SHADOW_PRESETS["plex86"].model_copy(update={"fill": fill, "on_cr3": "cache"})
    world = world_of(spec, 3, host_order=host_order)
    tables = [(ROOT, PDPT), (PDPT, PD), *([] if large else [(PD, PT)])]
    gva = PAGE
    if large:
        world.store((entry(1, PD), 1024 << 12 | PS | RIGHTS))
        gva = 0x20_0000
    world.load_root(ROOT << 12)  # with fill = "eager" all of it is filled: nothing below exits
    exits = counted(world, lambda: world.access(gva))
    assert exits == ({} if fill == "eager" else {"SHADOW_FILL": 1})
    world.load_root(ROOT << 12)
    assert world.load(*(entry(0, table) for table, _ in tables)) == [below << 12 | RIGHTS | A for _, below in tables]


@pytest.mark.parametrize("limit", [16, 17, 20])
def test_no_more_pages_are_kept_than_the_limit_allows(limit: int) -> None:
    world = World(ShadowSpec(limit=limit), frames=4096)
    tables = range(100, 140)
    world.store((ROOT << 12, PDPT << 12 | RIGHTS), (PDPT << 12, PD << 12 | RIGHTS))
    world.store(*(((PD << 12) + 8 * n, table << 12 | RIGHTS) for n, table in enumerate(tables)))
    world.store(*((entry(0, table), DATA << 12 | RIGHTS) for table in tables))
    world.load_root(ROOT << 12)
    for _ in range(2):
        for number in range(len(tables)):
            assert world.access(number << 21) is None
        world.audit()
        world.conserved()
    assert world.exits["SHADOW_FILL"] == 80  # in turn: each was recycled before it came round again


def test_a_program_may_not_write_to_the_tables_that_map_it() -> None:
    """A page of its own tables, mapped for it to write: each access is the monitor's."""
    for preset in ("kvm-2007", "plex86"):
        world = world_of(SHADOW_PRESETS[preset], 1)
        world.store((entry(1), PT << 12 | RIGHTS))
        world.flush()
        taken = counted(world, lambda world=world: [world.access(PAGE, write=True) for _ in range(5)])
        assert taken["PT_WRITE"] == 5
        assert world.access(PAGE) is None
        world.audit()


def test_kvm_leaves_a_lowest_table_to_a_program_too_but_none_above() -> None:
    """`mmu_try_to_unsync_pages` asks for the level, not for who stores; tables above are write-tracked."""
    world = world_of(SHADOW_PRESETS["kvm"], 1)
    world.store((entry(1), PT << 12 | RIGHTS), (entry(2), PD << 12 | RIGHTS))
    world.flush()
    lowest = counted(world, lambda: [world.access(PAGE, write=True) for _ in range(5)])
    assert lowest == {"SHADOW_FILL": 1}
    assert PT not in world.guarded_frames()
    above = counted(world, lambda: [world.access(2 * PAGE, write=True) for _ in range(5)])
    assert above["PT_WRITE"] >= 2  # until the flood ends its shadow
    world.flush()
    world.access(0)
    assert PT in world.guarded_frames()
    world.audit()


def test_the_software_tlb_remembers_walks_until_cr3_is_loaded() -> None:
    spec = SHADOW_PRESETS["plex86"]
    plain, with_tlb = (world_of(spec, 8, entries=entries) for entries in (0, 16))
    for world in (plain, with_tlb):
        world.access(0)
        world.vcpu.now = 0
        world.load(*(entry(n) for n in range(8)))
    (tlb,) = with_tlb.shadow.software_tlbs
    assert (tlb.hits, plain.shadow.software_tlbs[0].hits) == (7, 0)
    assert tlb.saved_cycles == plain.vcpu.now - with_tlb.vcpu.now > 0
    with_tlb.flush()
    with_tlb.access(0)
    with_tlb.load(entry(0))
    assert tlb.hits == 7


def test_page_faults_are_told_apart_by_where_the_address_leads_and_by_privilege() -> None:
    """What picks the pager in plex86: the faulting address and the virtual CPL. The guest's kernel runs at CPL 0."""
    world = world_of(SHADOW_PRESETS["plex86"], 3)
    world.shadow.state["trapped"] = 0
    world.shadow.exits.clear()
    for number in range(3):
        world.access(number * PAGE)
    world.access(9 * PAGE)  # not there: the guest's fault
    world.load(entry(0), entry(1))
    world.store((entry(1), PT << 12 | RIGHTS), (entry(2, PD), PD << 12 | RIGHTS), (entry(2), PD << 12 | RIGHTS))
    world.flush()
    for _ in range(5):
        world.access(PAGE, write=True)
    for _ in range(4):
        world.access(2 * PAGE, write=True)
    figures = figures_of(world.shadow)
    found = {name: figures["pagers", name] for name in ("table_0", "directory_0", "table_3", "directory_3", "data_3")}
    assert found == {"table_0": 2 + 2, "directory_0": 1, "table_3": 5, "directory_3": 4, "data_3": 3 + 1}


@pytest.mark.parametrize("preset", ["kvm", "kvm-2007", "plex86"])
def test_each_page_fault_has_a_pager(preset: str) -> None:
    table = vm(mode="shadow", memory="8MiB", shadow={"preset": preset})
    table["workload"] = {"kind": "compile", "footprint": 60 * PAGE, "processes": 3, "text": 20 * PAGE, "work": 200}
    (outcome,) = simulate(scenario(table, memory="32MiB")).vms
    exits = Counter({reason: count for reason, (count, _) in outcome.exits.items()})
    pagers = outcome.figures.named("pagers")
    kinds = ("HOST_FAULT", "SHADOW_FILL", "TRUE_FAULT", "PT_READ", "PT_WRITE")
    assert sum(pagers.values()) == sum(exits[kind] for kind in kinds)
    assert pagers["data_0"] == exits["HOST_FAULT"] > 0
    tables = sum(count for name, count in pagers.items() if "data" not in name)
    assert tables == exits["PT_READ"] + exits["PT_WRITE"] > 0
    assert pagers["directory_0"] > 0
