"""Does a core remember where the entries are that walks for small pages will read?

That nothing else depends on it, the twin shows, which has none of it.
"""

import pytest

from tests.machine.drawn_tables import make_world
from tests.machine.geometries import ENTRY, PREFIX
from tests.machine.worlds import Pair
from tests.oracle import bits
from tests.oracle.tables import descend, translate
from vmsim.machine.lookahead import entry_of
from vmsim.machine.pwc import GUEST, NESTED


@pytest.mark.parametrize("geometry", [PREFIX, ENTRY], ids=["prefix", "entry"])
@pytest.mark.parametrize("mode", ["native", "ept", "npt"])
def test_the_entries_of_pages_walked_for_are_where_it_says(mode: str, geometry) -> None:
    world = make_world(3, mode, 4, 4, [1], [1], holes=0)
    assert world.pages
    for gva in world.pages:
        with Pair(world, geometry) as pair:
            ours, theirs = pair.run(0, 0, [(gva, 1, 0)], 0, 1 << 60)
            assert ours == theirs
            core, vm = pair.cores[0], pair.vms[0][0][0]
            *_, (level, place, entry) = guest_entries(world, gva)
            assert (level, entry_of(core, GUEST, vm.asid, gva)) == (1, place)
            assert entry_of(core, GUEST, vm.asid, gva ^ 1 << 40) == 0
            assert entry_of(core, GUEST, vm.asid + (1 << 47), gva) == 0
            if mode != "native":
                page = entry & bits.ADDRESS
                *_, (_, place, _) = descend(world.words, world.nested_root, world.nested_levels, page)
                assert entry_of(core, NESTED, vm.nested_asid, page) == place


def guest_entries(world, gva):
    """Yield (level, hpa, entry) of a walk through the guest's tables."""
    table = world.cr3
    for level in range(world.levels, 0, -1):
        place = table + 8 * bits.index(gva, level)
        if world.nested_levels:
            place = translate(world.words, world.nested_root, world.nested_levels, place)[0]
        entry = world.words[place]
        yield level, place, entry
        table = entry & bits.ADDRESS
