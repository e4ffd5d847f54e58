"""Does a shadow monitor pay for what it reads, and for each table that it must map to reach it?

All expected figures are counted by hand from the tables that the guest has.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.monitor.test_shadow import DATA, OTHER_ROOT, PAGE, PD, PDPT, PT, RIGHTS, ROOT, entry, world_of
from tests.monitor.world import World, figures_of
from tests.oracle.bits import PS, RW, US, A, P
from vmsim.monitor.shadow.mode import SHADOW_PRESETS, ShadowSpec
from vmsim.scenario.cpu_files import load_cpu

COST = load_cpu("yardstick").cost
FAULT = COST.page_fault_exit + COST.vm_entry + COST.violation_resume
READ_ONLY = P | US | A
KVM, KVM_2007, PLEX86 = (SHADOW_PRESETS[name] for name in ("kvm", "kvm-2007", "plex86"))


def cycles(world: World, reason: str, step: Callable[[], object]) -> int:
    """Return the cycles of the exits of one kind that a step takes."""
    world.shadow.exit_cycles.clear()
    step()
    return world.shadow.exit_cycles[reason]


@pytest.mark.parametrize("hide", ["user-bit", "present-bit"])
@pytest.mark.parametrize(
    ("place", "value", "gva", "reads"),
    [
        ((PT << 12), DATA << 12 | READ_ONLY, 0, 4),
        ((PD << 12) + 8, PS | READ_ONLY, 2 << 20, 3),
        ((PDPT << 12) + 8, PS | READ_ONLY, 1 << 30, 2),
        ((PT << 12) + 8, 0, PAGE, 4),
        ((PD << 12) + 16, 0, 4 << 20, 3),
        ((PDPT << 12) + 16, 0, 2 << 30, 2),
        ((ROOT << 12) + 8, 0, 1 << 39, 1),
    ],
)
def test_the_monitors_walk_costs_what_it_reads(hide: str, place: int, value: int, gva: int, reads: int) -> None:
    """Of a page of 4 KiB four entries, of 2 MiB three, of 1 GiB two; an absent entry ends it. A store that the guest
    forbids is handed on, with nothing filled."""
    spec = KVM_2007.model_copy(update={"hide": hide})
    world = world_of(spec, frames=1 << 18, backed=False)
    world.store((place, value))
    each = COST.guest_walk_level + (COST.map_unmap if hide == "present-bit" else 0)
    paid = cycles(world, "TRUE_FAULT", lambda: world.access(gva, write=True))
    assert paid == FAULT + reads * each + COST.inject


@pytest.mark.parametrize(("frames", "reads"), [(500, 4), (2048, 3), (1 << 18, 2)])
@pytest.mark.parametrize("hide", ["write-protect", "user-bit", "present-bit"])
def test_the_kernels_own_map_leads_to_a_table_by_the_largest_pages_there_are(
    hide: str, frames: int, reads: int
) -> None:
    """Linux maps all memory by pages of 1 GiB, of 2 MiB, and what is left over by small ones (arch/x86/mm/init.c)."""
    far = COST.map_unmap if hide == "present-bit" else 0
    spec = KVM_2007.model_copy(update={"hide": hide, "write_flood": 0})
    world = world_of(spec, frames=frames, backed=False)
    world.store((entry(0), DATA % frames << 12 | RIGHTS))
    world.access(0)
    paid = cycles(world, "PT_WRITE", lambda: world.store((entry(7), DATA % frames << 12 | RIGHTS)))
    assert paid == FAULT + far + reads * (COST.guest_walk_level + far) + COST.decode + COST.emulate


def test_a_store_that_leaves_its_table_to_the_guest_pays_for_the_walk_too() -> None:
    world = world_of(KVM, 1)
    world.access(0)
    paid = cycles(world, "PT_WRITE", lambda: world.store((entry(7), DATA << 12 | RIGHTS)))
    assert paid == FAULT + 3 * COST.guest_walk_level + COST.violation_entry


def more(step: Callable[[World], object], spec: ShadowSpec, pages: int = 5, paid: int = 0) -> int:
    """Return how many tables are mapped where the present bit hides them, by cycles and by count."""
    spent = {}  # `paid`: those in walks and emulated accesses
    for hide in ("user-bit", "present-bit"):
        world = world_of(spec.model_copy(update={"hide": hide}), pages)
        for number in range(pages):
            world.access(number * PAGE, write=True)
        world.shadow.state["work"] = 0
        world.vcpu.now = 0
        step(world)
        spent[hide] = world.vcpu.now
        mapped = figures_of(world.shadow)["shadow", "mapped"]
        assert mapped == 0 or hide == "present-bit"
    assert spent["present-bit"] - spent["user-bit"] == (mapped + paid) * COST.map_unmap
    return mapped


def test_a_load_of_cr3_maps_each_table_whose_flags_are_written_back() -> None:
    """The four tables of the old root; the new one is empty, and lazy fill looks at nothing."""
    assert more(lambda world: world.load_root(OTHER_ROOT << 12), PLEX86) == 4


def test_an_eager_load_of_cr3_maps_each_table_that_it_reads() -> None:
    """Four are written back and read again; each is mapped once in an exit."""
    eager = PLEX86.model_copy(update={"fill": "eager"})
    assert more(lambda world: world.load_root(ROOT << 12), eager) == 4
    assert more(lambda world: world.load_root(OTHER_ROOT << 12), eager) == 4 + 1  # and the new root, to see it empty


def test_an_eager_load_of_cr3_without_flags_to_write_back_maps_what_it_reads() -> None:
    kept = KVM_2007.model_copy(update={"fill": "eager"})
    assert more(lambda world: world.load_root(ROOT << 12), kept) == 4


def test_a_table_above_that_goes_has_those_below_it_kept() -> None:
    """A store to the PDPT writes back its own entry, for which it is mapped already."""
    assert more(lambda world: world.store((PDPT << 12, 0)), PLEX86, paid=1 + 3) == 0  # itself, and the way there


def test_a_page_recycled_writes_its_flags_back_to_a_table_that_is_mapped() -> None:
    """17 chains of a table each under one PD, of which 16 shadow pages can be: the first lowest table goes."""
    spent = {}
    tables = range(100, 114)
    for hide in ("user-bit", "present-bit"):
        world = World(PLEX86.model_copy(update={"limit": 16, "hide": hide}), frames=4096)
        world.store((ROOT << 12, PDPT << 12 | RIGHTS), (PDPT << 12, PD << 12 | RIGHTS))
        world.store(*(((PD << 12) + 8 * n, table << 12 | RIGHTS) for n, table in enumerate(tables)))
        world.store(*(((table << 12), DATA << 12 | RIGHTS | A) for table in tables))
        world.load_root(ROOT << 12)
        for number in range(13):
            world.access(number << 21)
        assert int(world.shadow.state["used"][0]) == 16
        spent[hide] = cycles(world, "SHADOW_FILL", lambda world=world: world.access(13 << 21))
    far = COST.map_unmap
    assert spent["present-bit"] - spent["user-bit"] == 4 * far + 1 * far  # the walk's four, and that of the victim


def test_invlpg_brings_a_table_into_step_that_is_mapped_once() -> None:
    spec = KVM

    def step(world: World) -> None:
        world.store((entry(0), DATA + 9 << 12 | RIGHTS | A), (entry(1), 0))
        world.shadow.state["work"] = 0
        world.vcpu.now = 0
        world.invalidate(0, 5 * PAGE - 1)

    assert more(step, spec) == 1


def test_rights_that_a_program_lacks_are_the_same_however_tables_are_hidden() -> None:
    for hide in ("write-protect", "user-bit", "present-bit"):
        world = world_of(KVM_2007.model_copy(update={"hide": hide}), 1)
        world.store((entry(1), PT << 12 | P | US | A))
        assert world.access(PAGE, write=True) == P | RW | US
