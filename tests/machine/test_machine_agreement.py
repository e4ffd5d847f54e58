"""Does the machine do what the twin does, on random tables and streams?"""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine.drawn_tables import add_no_execute, add_reserved, add_shadow, make_world
from tests.machine.geometries import GEOMETRIES
from tests.machine.worlds import Pair
from tests.oracle import bits
from vmsim.machine.flush import flush_asid, invalidate_page
from vmsim.machine.tlb import ASID_SHIFT

NEVER = 1 << 60
SIZES = st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3, unique=True)
STREAM = {
    "seed": st.integers(0, 1 << 32),
    "guest_sizes": SIZES,
    "host_sizes": SIZES,
    "holes": st.sampled_from([0.0, 0.1, 0.3]),
    "accesses": st.integers(1, 150),
    "cores": st.integers(1, 2),
    "vms": st.integers(1, 2),
    "window": st.sampled_from([0, 0, 1, 3, 20]),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@given(
    mode=st.sampled_from(["native", "ept", "ept-ad", "npt"]),
    levels=st.sampled_from([3, 4, 5]),
    nested_levels=st.sampled_from([3, 4, 5]),
    switching=st.sampled_from([None, 0.0, 0.3, 0.8]),
    reserved=st.booleans(),
    no_execute=st.booleans(),
    pages_1g=st.sampled_from([True, True, False]),
    **STREAM,
)
def test_a_stream_does_the_same_on_machine_and_twin(name, mode, levels, nested_levels, **drawn):
    if nested_levels == 3 and mode != "npt":  # EPT has no such format
        nested_levels = 4
    agree(GEOMETRIES[name], mode, levels, nested_levels, **drawn)


@pytest.mark.parametrize("name", ["prefix", "entry"])
@settings(max_examples=120)
@given(
    platform=st.sampled_from([*[("npt", 2)] * 4, ("npt", 3), ("npt", 4), ("ept-ad", 5), ("ept", 4), ("native", 0)]),
    **STREAM,
)
def test_a_stream_of_32_bit_paging_does_the_same_on_machine_and_twin(name, platform, **drawn):
    """Where it is the host's format too it is the guest's."""
    agree(GEOMETRIES[name], platform[0], 2, platform[1], **drawn)


def agree(
    geometry,
    mode,
    levels,
    nested_levels,
    seed,
    guest_sizes,
    host_sizes,
    holes,
    accesses,
    cores,
    vms,
    window=0,
    switching=None,
    reserved=False,
    no_execute=False,
    pages_1g=True,
):
    """Run a random stream on random tables, on cores of a geometry and on the twin's, and compare all there is."""
    guest_sizes = [min(size, bits.highest_leaf(levels)) for size in guest_sizes]
    host_sizes = [min(size, bits.highest_leaf(nested_levels)) for size in host_sizes]
    world = make_world(seed, mode, levels, nested_levels, guest_sizes, host_sizes, holes)
    if reserved:
        world = add_reserved(world, seed)
    if switching is not None and mode != "native" and min(levels, nested_levels) > 3:
        world = add_shadow(world, seed, switching)
    if no_execute:
        world = add_no_execute(world, seed)
    world = replace(world, pages_1g=pages_1g)
    random = Random(seed)
    some = random.sample(world.pages, min(len(world.pages), random.randint(1, 12)))
    runs = [
        (random.choice(some) + 8 * random.randrange(512), random.choice([1, 1, 1, 5]), random.choice([0, 0, 1, 2]))
        for _ in range(accesses)
    ]
    with Pair(world, geometry, cores, vms) as pair:
        if seed % 2:  # nodes: two that begin and end among the tables, and one of all else
            ends = [*sorted(random.sample([hpa & ~0xFFF for hpa in world.words], 2)), 1 << 50]
            pair.divide([(end, [random.randrange(100, 400) for _ in range(cores)]) for end in ends])
        if geometry.llc.policy:  # a partition of its own for each VM, or overlapping ones
            every = range(geometry.llc.ways)
            pair.share_out([set(random.sample(every, random.randint(1, len(every)))) for _ in pair.vms])
        if window:
            pair.overlap(window)
        cursor = 0
        while cursor < len(runs):
            budget = random.choice([NEVER, NEVER, 500, 5000, 1])
            vm = random.randrange(vms)
            ours, theirs = pair.run(random.randrange(cores), vm, runs, cursor, budget)
            assert ours == theirs
            reason, cursor, *_ = ours
            cursor += reason not in ("DONE", "BUDGET")  # nobody mends the tables here: go on after it
            if random.random() < 0.05:
                both = pair.vms[vm][1].asids
                for asid, core in product(both, pair.twin_cores):
                    core.flush_asid(asid)
                for asid in both:
                    flush_asid(pair.cores, asid << ASID_SHIFT)
            if random.random() < 0.1:
                gva, size, width = random.choice(some), random.choice(guest_sizes) - 1, bits.width(levels)
                invalidate_page(pair.cores, pair.vms[vm][0][0].asid, gva, width * size)
                for core in pair.twin_cores:
                    core.invalidate_page(vm + 1, gva, size, width)
        pair.check()
