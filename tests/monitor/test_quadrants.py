"""Do shadows of 32-bit guests hang together as KVM's do: quadrants, and PDPTEs that are loaded with CR3?

What is expected is counted by hand from Linux Documentation/virt/kvm/x86/mmu.rst (role.quadrant): two shadow pages for
a page table, each 2 MiB of its 4 MiB; four for a page directory, each 1 GiB; two shadow entries for an entry of it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.monitor.world import World
from tests.oracle.bits import PS, RW, US, A, D, P
from vmsim.machine.formats import FRAME, PRESENT
from vmsim.monitor.shadow.mode import SHADOW_PRESETS, ShadowSpec

RIGHTS = P | RW | US
ROOT, PT, OTHER_PT, OTHER_ROOT = 8, 9, 10, 11
DATA, LARGE = 600, 1024
MB, GB = 1 << 20, 1 << 30


def entry(index: int, table: int = PT) -> int:
    return (table << 12) + 4 * index


def world_of(spec: ShadowSpec | None = None, **keys: Any) -> World:
    """Return a guest in 32-bit paging: a page table for its first 4 MiB, another for 4 MiB from 1 GiB on."""
    world = World(spec or ShadowSpec(), levels=2, **keys)
    world.store((entry(0, ROOT), PT << 12 | RIGHTS), (entry(256, ROOT), OTHER_PT << 12 | RIGHTS))
    pages = {0: 0, 1: 1, 511: 2, 512: 3, 513: 4, 1023: 5}
    world.store(*((entry(index), DATA + n << 12 | RIGHTS) for index, n in pages.items()))
    world.store((entry(0, OTHER_PT), DATA + 6 << 12 | RIGHTS))
    world.load_root(ROOT << 12)
    return world


def pages_of(world: World) -> Counter[tuple[int, int, int]]:
    """Return the shadow pages: (gfn, level, quadrant) of each."""
    pages = world.shadow.pages
    return Counter((*map(int, page),) for page in pages[pages["level"] > 0][["gfn", "level", "quadrant"]].tolist())


def exits(world: World, *pairs: tuple[int, int]) -> dict[str, int]:
    """Return the exits that stores take."""
    world.shadow.exits.clear()
    world.store(*pairs)
    return world.exits


def test_a_directory_has_four_shadow_pages_and_a_table_two() -> None:
    world = world_of()
    directories = {(ROOT, 2, quadrant): 1 for quadrant in range(4)}
    assert pages_of(world) == directories
    world.access(511 << 12)
    assert pages_of(world) == directories | {(PT, 1, 0): 1}
    world.access(512 << 12)
    assert pages_of(world) == directories | {(PT, 1, 0): 1, (PT, 1, 1): 1}
    world.access(GB)
    assert pages_of(world) == directories | {(PT, 1, 0): 1, (PT, 1, 1): 1, (OTHER_PT, 1, 0): 1}
    assert world.audit() == 3
    world.conserved()
    assert world.shadow.frames_held == 7 + 1 + int(world.shadow.cpus["stock"][0])  # and the page of PDPTEs


def test_cr3_leads_to_each_quadrant_by_a_pdpte_without_rights() -> None:
    world = world_of()
    pdptes = world.registers["pdpte"][0].tolist()
    root = int(world.registers["cr3"][0]) >> 3
    assert world.memory[root : root + 4].tolist() == pdptes
    pages = world.shadow.pages
    frames = {int(page["hpa"]): int(page["quadrant"]) for page in pages[pages["level"] == 2]}
    assert [frames[pdpte & FRAME] for pdpte in pdptes] == [0, 1, 2, 3]
    assert all(pdpte & ~FRAME == PRESENT for pdpte in pdptes)


def test_a_walk_of_the_shadow_is_one_of_pae() -> None:
    """Two references: a directory's entry and a table's; the first level is in registers (SDM vol. 3A §5.4.1)."""
    world = world_of()
    world.access(513 << 12)
    before = world.registers["refs"][0].sum(axis=(1, 2))
    world.cores["pde"]["tag"] = -1
    for unit in ("l1_tlb0", "l1_tlb1", "l1_tlb2", "l2_tlb0"):
        world.cores[unit]["tag"] = -1
    world.access(513 << 12)
    assert (world.registers["refs"][0].sum(axis=(1, 2)) - before).tolist() == [0, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("index", [0, 511, 512, 1023])
def test_a_store_to_a_table_changes_the_quadrant_that_it_is_in(index: int) -> None:
    world = world_of(SHADOW_PRESETS["kvm-2007"])
    for each in (0, 1, 511, 512, 513, 1023):
        world.access(each << 12)
    assert exits(world, (entry(index), DATA + 50 << 12 | RIGHTS)) == {"PT_WRITE": 1}
    world.invalidate(index << 12, (index << 12) + 4095)
    assert {gva >> 12 for gva, *_ in world.leaves()} == {0, 1, 511, 512, 513, 1023} - {index}
    world.shadow.exits.clear()
    world.access(index << 12)
    assert world.exits == {"SHADOW_FILL": 1}


def test_an_entry_of_a_directory_has_two_shadow_entries() -> None:
    world = world_of(SHADOW_PRESETS["kvm-2007"])
    for gva in (0, 2 * MB, GB):
        world.access(gva)
    assert exits(world, (entry(0, ROOT), 0)) == {"PT_WRITE": 1}
    world.invalidate(0, 4 * MB - 1)
    assert [gva for gva, *_ in world.leaves()] == [GB]
    assert exits(world, (entry(256, ROOT), 0)) == {"PT_WRITE": 1}  # of another quadrant
    world.invalidate(GB, GB + 4 * MB - 1)
    assert [*world.leaves()] == []
    assert world.access(0) == US


@pytest.mark.parametrize("host_order", [0, 9])
def test_a_page_of_4m_is_shadowed_by_two_of_2m_or_split(host_order: int) -> None:
    for spec in SHADOW_PRESETS.values():
        world = world_of(spec, host_order=host_order)
        place = entry(3, ROOT)
        world.store((place, LARGE << 12 | PS | RIGHTS))
        for number, (offset, write) in enumerate([(0, False), (2 * MB, False), (4 * MB - 4096, True)]):
            assert world.access(12 * MB + offset, write) is None
            assert world.load(place) == [LARGE << 12 | PS | RIGHTS | A | (D if number == 2 else 0)]
        if host_order:
            assert {(gva, level) for gva, level, *_ in world.leaves()} <= {(12 * MB, 2), (14 * MB, 2)}
        assert {level for _, level, *_ in world.leaves()} == {2 if host_order else 1}
        world.audit()
        world.conserved()


def test_a_page_of_4m_that_is_not_aligned_is_a_fault_of_the_guest() -> None:
    """SDM vol. 3A table 5-4: bits 21:13 are address or reserved; bit 12 is PAT. No guest here has PSE-36."""
    world = world_of()
    world.store((entry(3, ROOT), (LARGE | 512) << 12 | PS | RIGHTS), (entry(4, ROOT), (LARGE | 1) << 12 | PS | RIGHTS))
    assert world.access(12 * MB) == P | US | 1 << 3
    assert world.access(16 * MB) is None


def test_the_first_store_leaves_both_halves_of_a_table_to_the_guest() -> None:
    """mmu_try_to_unsync_pages marks every shadow page of the frame."""
    world = world_of(SHADOW_PRESETS["kvm"])
    world.access(0)
    world.access(512 << 12)
    taken = exits(world, *((entry(index), DATA + 40 + n << 12 | RIGHTS) for n, index in enumerate((5, 600, 6, 601))))
    assert taken == {"PT_WRITE": 1}
    assert int(world.shadow.state["unsynced"][0]) == 2
    world.load_root(ROOT << 12)
    assert int(world.shadow.state["unsynced"][0]) == 0
    world.audit()


@pytest.mark.parametrize("flood", [1, 3])
def test_a_flood_ends_the_shadows_of_all_quadrants(flood: int) -> None:
    """kvm_mmu_track_write counts stores to each page of the frame, whichever half they are in."""
    world = world_of(SHADOW_PRESETS["kvm-2007"].model_copy(update={"write_flood": flood}))
    world.access(0)
    world.access(512 << 12)
    places = [entry(index) for index in (5, 600, 6, 601, 7, 602)]
    assert exits(world, *((place, DATA + 40 << 12 | RIGHTS) for place in places)) == {"PT_WRITE": flood}
    assert not any(gfn == PT for gfn, _, _ in pages_of(world))
    world.conserved()


@pytest.mark.parametrize(("preset", "stores"), [("kvm", 1 + 3), ("kvm-2007", 3 + 3), ("plex86", 2 * 1024)])
def test_frames_that_were_tables_are_written_over_in_4_bytes(preset: str, stores: int) -> None:
    world = world_of(SHADOW_PRESETS[preset].model_copy(update={"on_cr3": "cache"}))
    world.access(0)
    world.access(512 << 12)
    world.load_root(OTHER_ROOT << 12)
    world.shadow.exits.clear()
    world.clear(PT)
    world.clear(ROOT)
    assert world.exits["PT_WRITE"] == stores
    world.audit()


@pytest.mark.parametrize(("fill", "mapped"), [("lazy", 0), ("eager", 7)])
def test_eager_fills_all_quadrants_when_cr3_is_loaded(fill: str, mapped: int) -> None:
    world = world_of(SHADOW_PRESETS["plex86"].model_copy(update={"fill": fill}))
    world.load_root(ROOT << 12)
    assert world.audit() == mapped


def test_pages_are_recycled_but_for_those_that_cr3_leads_to() -> None:
    world = World(ShadowSpec(limit=16), levels=2)
    tables = range(100, 140)
    world.store(*((entry(n, ROOT), table << 12 | RIGHTS) for n, table in enumerate(tables)))
    world.store(*((entry(700, table), DATA << 12 | RIGHTS) for table in tables))
    world.load_root(ROOT << 12)
    for _ in range(2):
        for number in range(len(tables)):
            assert world.access((number << 22) + (700 << 12)) is None
        world.audit()
        world.conserved()
    assert world.exits["SHADOW_FILL"] == 80
    assert [pages_of(world)[ROOT, 2, quadrant] for quadrant in range(4)] == [1, 1, 1, 1]


class TestPae:
    """A PAE guest: PDPTEs in frame 8, page directories in 9 and 10, a page table in 11."""

    @staticmethod
    def world(spec: ShadowSpec | None = None) -> World:
        world = World(spec or SHADOW_PRESETS["kvm-2007"], levels=3)
        world.store((8 << 12, 9 << 12 | P), (9 << 12, 11 << 12 | RIGHTS), (10 << 12, 11 << 12 | RIGHTS))
        world.store(*(((11 << 12) + 8 * n, DATA + n << 12 | RIGHTS) for n in range(4)))
        world.load_root(8 << 12)
        return world

    def test_pdptes_are_those_of_the_last_load_of_cr3(self) -> None:
        """SDM vol. 3A §5.4.1: stores to them do nothing until then; KVM shadows none (arch/x86/kvm/x86.c)."""
        world = self.world()
        assert world.access(0) is None
        assert exits(world, (8 << 12, 0), ((8 << 12) + 8, 10 << 12 | P)) == {}
        assert (world.access(4096), world.access(GB)) == (None, US)
        world.load_root(8 << 12)
        assert (world.access(0), world.access(GB)) == (US, None)
        assert world.audit() == 2  # the table below both has kept its shadow, with pages 0 and 1

    def test_an_absent_pdpte_has_no_shadow_page(self) -> None:
        world = self.world()
        assert [bool(pdpte) for pdpte in world.registers["pdpte"][0]] == [True, False, False, False]
        assert pages_of(world) == {(9, 2, 0): 1}
        world.conserved()

    def test_two_pdptes_may_lead_to_one_directory(self) -> None:
        world = self.world()
        world.store(((8 << 12) + 16, 9 << 12 | P))
        world.load_root(8 << 12)
        assert pages_of(world) == {(9, 2, 0): 1}
        assert (world.access(0), world.access(2 * GB)) == (None, None)
        assert np.count_nonzero(world.shadow.pages["level"]) == 2
        world.audit()

    def test_a_pdpte_with_a_reserved_bit_is_a_fault(self) -> None:
        world = self.world()
        world.store(((8 << 12) + 8, 10 << 12 | P | RW), ((8 << 12) + 16, 1 << 40 | P))
        world.load_root(8 << 12)
        assert world.access(GB) == world.access(2 * GB) == P | US | 1 << 3
