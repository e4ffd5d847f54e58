"""Does an access that faulted succeed once its cause is mended, with no flush in between?"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from tests.machine.drawn_tables import guest_entries, make_world
from tests.machine.geometries import GEOMETRIES
from tests.machine.worlds import Pair, World
from tests.oracle.bits import PS, RW, US, A, D, P
from tests.oracle.tables import descend, translate_guest

NEVER = 1 << 60


def nested_entries(world: World, gva: int) -> list[int]:
    """Return where the nested entries for the data page of `gva` lie, root first."""
    gpa, _ = translate_guest(world.words, world.cr3, world.levels, world.nested_root, world.nested_levels, gva)
    return [place for _, place, _ in descend(world.words, world.nested_root, world.nested_levels, gpa)]


@pytest.mark.parametrize(("name", "size"), [*product(GEOMETRIES, (1, 2, 3))])
@pytest.mark.parametrize("dimension", ["native", "guest", "nested"])
def test_a_mended_fault_does_not_come_back(name, size, dimension):
    mode = "native" if dimension == "native" else "npt"
    depth = 0
    while True:  # deny the right in each entry of the walk in turn
        world = make_world(11, mode, 4, 4, [size], [size], 0.0)
        gva = world.pages[0]
        places = nested_entries(world, gva) if dimension == "nested" else guest_entries(world, gva)
        if depth == len(places):
            break
        for place in places:
            world.words[place] |= P | RW | US | A
        world.words[places[-1]] &= ~D
        world.words[places[depth]] &= ~RW
        with Pair(world, GEOMETRIES[name]) as pair:
            if dimension != "nested":  # a nested entry above may be needed for the guest's own tables
                ours, theirs = pair.run(0, 0, [(gva, 1, 0)], 0, NEVER)
                assert ours == theirs
                assert ours[0] == "DONE"
            ours, theirs = pair.run(0, 0, [(gva, 1, 1)], 0, NEVER)
            assert ours == theirs
            assert ours[0] == ("VIOLATION" if dimension == "nested" else "GUEST_FAULT")
            world.words[places[depth]] |= RW
            pair.memory[places[depth] >> 3] = world.words[places[depth]]
            ours, theirs = pair.run(0, 0, [(gva, 1, 1)], 0, NEVER)
            assert ours == theirs
            assert ours[0] == "DONE"
            pair.check()
        depth += 1


def test_a_dirty_flag_once_set_stays_set():
    # The guest's large leaf is kept in the cache of entries, and the nested walk of its data page comes between the
    # reading of the leaf and the setting of its flags.
    world = make_world(1, "ept-ad", 4, 4, [2], [1], 0.0)
    gva = world.pages[0]
    leaf = guest_entries(world, gva)[-1]
    world.words[leaf] = (world.words[leaf] | P | RW | US) & ~(A | D)
    with Pair(world, GEOMETRIES["entry"], cores=2) as pair:
        for core, kind in ((0, 0), (1, 1), (0, 0), (1, 0)):
            ours, theirs = pair.run(core, 0, [(gva, 1, kind)], 0, NEVER)
            assert ours == theirs
            for registers, _ in pair.vms:
                pair.cores["l1_tlb0"]["tag"] = -1  # walk again, the walk caches still warm
                registers[0].walk_cycles += 0
            for twin in pair.twin_cores:
                for level in twin.tlb:
                    for array in level.arrays:
                        array.remove_if(lambda key: True)
            for name in ("l2_tlb0", "l2_tlb1", "l2_tlb2"):
                pair.cores[name]["tag"] = -1
        assert int(pair.memory[leaf >> 3]) & (A | D) == A | D
        pair.check()


RESERVED = [  # levels, the page's level, whether there are pages of 1 GiB; which entry, and its bit that has to be 0
    (4, 1, True, 4, PS),
    (5, 1, True, 5, PS),
    (4, 1, False, 3, PS),
    (4, 2, True, 2, 1 << 13),
    (5, 3, True, 3, 1 << 29),
    (3, 1, True, 3, RW),
    (3, 1, True, 3, PS),
]


@pytest.mark.parametrize("mode", ["native", "npt"])
@pytest.mark.parametrize(("levels", "size", "pages_1g", "level", "bit"), RESERVED)
def test_a_reserved_bit_faults_whatever_the_rights_until_it_is_cleared(mode, levels, size, pages_1g, level, bit):
    world = replace(make_world(5, mode, levels, 4, [size], [1], 0.0), pages_1g=pages_1g)
    gva = world.pages[0]
    places = guest_entries(world, gva)
    for place in places[levels == 3 :]:  # a PDPTE has no rights
        world.words[place] |= P | RW | US | A
    place = places[levels - level]
    right = world.words[place]
    for denied in (0, RW | US) if levels > 3 else (0,):
        world.words[place] = (right | bit) & ~denied
        with Pair(world, GEOMETRIES["prefix"]) as pair:
            ours, theirs = pair.run(0, 0, [(gva, 1, 1)], 0, NEVER)
            assert ours == theirs
            assert ours[0] == "GUEST_FAULT"
            assert ours[-1] == P | RW | US | 1 << 3  # the codes of present, write, user, and reserved
            if levels > 3 or mode == "npt":  # else it is in a register
                pair.memory[place >> 3] = world.words[place] = right
                ours, theirs = pair.run(0, 0, [(gva, 1, 1)], 0, NEVER)
                assert ours == theirs
                assert ours[0] == "DONE"
            pair.check()


@pytest.mark.parametrize("level", [1, 2, 4])
@pytest.mark.parametrize("warm", [False, True])
def test_a_flag_is_not_set_in_a_guest_table_that_the_host_protects(level, warm):
    """EPT without A/D: the walks read the tables, but where they set a flag of the guest's they write."""
    world = make_world(3, "ept", 4, 4, [1], [1], 0.0)
    gva = world.pages[0]
    places = guest_entries(world, gva)
    for place in places:
        world.words[place] |= P | RW | US | A
    above = world.words[places[4 - level - 1]] if level < 4 else world.cr3
    gpa = above & 0xF_FFFF_FFFF_F000
    *_, (_, leaf, entry) = descend(world.words, world.nested_root, 4, gpa)
    world.words[leaf] = entry & ~RW
    place = places[4 - level]
    with Pair(world, GEOMETRIES["prefix"]) as pair:
        for step in ("read", "mend"):
            if warm or step == "mend":  # the paging-structure caches have the way to the table, and not its gpa
                ours, theirs = pair.run(0, 0, [(gva, 1, 0)], 0, NEVER)
                assert ours == theirs
                assert ours[0] == "DONE"
            pair.cores["l1_tlb0"]["tag"] = pair.cores["l2_tlb0"]["tag"] = -1
            for each in pair.twin_cores[0].tlb:
                for array in each.arrays:
                    array.remove_if(lambda key: True)
            if step == "mend":
                break
            world.words[place] &= ~A
            pair.memory[place >> 3] = world.words[place]
            ours, theirs = pair.run(0, 0, [(gva, 1, 0)], 0, NEVER)
            assert ours == theirs
            if warm and level > 1:  # the walk begins below
                assert ours[0] == "DONE"
                break
            assert ours[0] == "VIOLATION"
            assert ours[-2:] == (gpa, P | RW | 1 << 33)
            assert not pair.memory[place >> 3] & A
            world.words[leaf] = entry
            pair.memory[leaf >> 3] = entry
        pair.check()
