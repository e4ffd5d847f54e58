"""Does an invalidation remove what its manual says, and no more?"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.machine.drawn_tables import make_world
from tests.machine.geometries import ENTRY, GEOMETRIES, PREFIX
from tests.machine.worlds import HOST_TABLE, NESTED_ASIDS, Pair, World, contents
from tests.oracle.bits import RW, US, A, D, P, span
from tests.oracle.tables import Frames, build, translate, translate_guest
from vmsim.machine.flush import ASIDS, LINEAR, NESTED, flush_asid, forget, invalidate, invalidate_page
from vmsim.machine.tlb import ASID_SHIFT

NEVER = 1 << 60
TLBS = [f"{level}_tlb{n}" for level in ("l1", "l2") for n in range(3)]
GUEST_WALK = ["pde", "pdpte", "pml4e", "pml5e"]
NESTED_WALK = [f"nested_{name}" for name in GUEST_WALK] + ["ntlb"]
SEEDS = st.integers(0, 1 << 20)
MODES = st.sampled_from(["native", "ept", "ept-ad", "npt"])


def warm(seed: int, mode: str, geometry: Any, guest_sizes: tuple[int, ...] = (1,)) -> Pair:
    """Return two cores, each warmed by the same two VMs."""
    pair = Pair(make_world(seed, mode, 4, 4, list(guest_sizes), [1], 0.0), geometry, cores=2, vms=2)
    random = Random(seed)
    for core in range(2):
        for vm in range(2):
            runs = [(random.choice(pair.world.pages), 1, random.choice([0, 1])) for _ in range(25)]
            cursor = 0
            while cursor < len(runs):
                (reason, cursor, *_), _ = pair.run(core, vm, runs, cursor, NEVER)
                cursor += reason != "DONE"
    return pair


def kept(core: Any, name: str) -> list[tuple[Any, Any]]:
    return [entry for entries in contents(core, name) for entry in entries if entry]


def keyed(pair: Pair) -> list[dict[str, list[tuple[Any, Any]]]]:
    return [{name: kept(core, name) for name in (*TLBS, *GUEST_WALK, *NESTED_WALK)} for core in pair.cores]


def caches(pair: Pair) -> list[Any]:
    return [pair.llc["tag"].tolist()] + [pair.cores[name]["tag"].tolist() for name in ("l1", "l2")]


@given(seed=SEEDS, mode=MODES)
def test_flushing_an_asid_removes_all_of_it_and_nothing_else(seed, mode):
    with warm(seed, mode, PREFIX) as pair:
        for asid in (1, 1 + NESTED_ASIDS):
            before, data = keyed(pair), caches(pair)
            flush_asid(pair.cores, asid << ASID_SHIFT)
            assert caches(pair) == data  # physical addresses are not the address space's
            for was, now in zip(before, keyed(pair), strict=True):
                assume(asid > 2 or {key[0] for name in TLBS for key, _ in was[name]} == {1, 2})
                for name in was:
                    assert now[name] == [each for each in was[name] if each[0][0] != asid], name


@given(seed=SEEDS, mode=MODES, geometry=st.sampled_from(sorted(GEOMETRIES)), core=st.integers(0, 1))
def test_a_flush_is_of_the_cores_the_asids_and_the_kinds_given(seed, mode, geometry, core):
    with warm(seed, mode, GEOMETRIES[geometry]) as pair:
        gone = np.zeros(ASIDS, bool)
        gone[[1, 2 + NESTED_ASIDS]] = True
        for kinds, units in ((LINEAR, (*TLBS, *GUEST_WALK)), (NESTED, NESTED_WALK)):
            before = keyed(pair)
            forget(pair.cores[core : core + 1], gone, kinds)
            after = keyed(pair)
            assert after[1 - core] == before[1 - core]
            for name, was in before[core].items():
                assert after[core][name] == [each for each in was if name not in units or not gone[each[0][0]]], name
        if geometry == "entry":
            assert not kept(pair.cores[core], "pwc")
            assert kept(pair.cores[1 - core], "pwc")


@given(seed=SEEDS, mode=MODES)
def test_invlpg_removes_one_page_and_the_walk_caches_of_its_address_space(seed, mode):
    with warm(seed, mode, PREFIX) as pair:
        before, data = keyed(pair), caches(pair)
        gva = Random(seed).choice(pair.world.pages)
        invalidate_page(pair.cores, pair.vms[0][0][0].asid, gva + 0x123, 0)
        assert caches(pair) == data
        for was, now in zip(before, keyed(pair), strict=True):
            for name in TLBS:
                assert now[name] == [each for each in was[name] if each[0] != (1, 0, gva >> 12)], name
            for name in GUEST_WALK:
                assert now[name] == [each for each in was[name] if each[0][0] != 1], name
            for name in NESTED_WALK:  # guest-physical mappings are not INVLPG's (SDM vol. 3C §30.4.3.1)
                assert now[name] == was[name], name


@given(seed=SEEDS, geometry=st.sampled_from(sorted(GEOMETRIES)), size=st.sampled_from([1, 2]))
def test_invlpg_removes_a_large_page_by_any_address_in_it(seed, geometry, size):
    with warm(seed, "native", GEOMETRIES[geometry], guest_sizes=(size + 1,)) as pair:
        gva = Random(seed).choice(pair.world.pages)
        before = keyed(pair)
        invalidate_page(pair.cores, pair.vms[0][0][0].asid, gva ^ 0x5000, 9 * size)
        for was, now in zip(before, keyed(pair), strict=True):
            for name in TLBS:
                page = (1, size, gva // span(size + 1))
                assert now[name] == [each for each in was[name] if each[0] != page], name


@given(seed=SEEDS, mode=st.sampled_from(["ept-ad", "npt"]))
def test_invlpg_empties_a_cache_of_entries_that_has_no_tags(seed, mode):
    with warm(seed, mode, ENTRY) as pair:
        assert kept(pair.cores[0], "pwc")
        invalidate_page(pair.cores, pair.vms[0][0][0].asid, pair.world.pages[0], 0)
        assert not any(kept(core, "pwc") for core in pair.cores)


@given(seed=SEEDS, geometry=st.sampled_from(sorted(GEOMETRIES)), sizes=st.sampled_from([(1,), (1, 2, 3)]))
def test_invalidating_a_range_removes_every_page_that_it_touches(seed, geometry, sizes):
    random = Random(seed)
    with warm(seed, "native", GEOMETRIES[geometry], guest_sizes=sizes) as pair:
        first, last = sorted(random.choice(pair.world.pages) + random.randrange(4096) for _ in range(2))
        before = keyed(pair)
        invalidate(pair.cores, pair.vms[0][0][0].asid, first, last)
        for was, now in zip(before, keyed(pair), strict=True):
            for name in TLBS:
                expected = [
                    ((asid, size, page), value)
                    for (asid, size, page), value in was[name]
                    if asid != 1 or page < first // span(size + 1) or page > last // span(size + 1)
                ]
                assert now[name] == expected, name


def splintered(size: int) -> World:
    """Return a guest with one large page, three of whose frames lie on small host pages."""
    world = make_world(1, "npt", 4, 4, [size + 1], [1], 0.0)
    gva = world.pages[0] // span(size + 1) * span(size + 1)
    frames = Frames(0xA_0000)
    for offset in (0, 0x1000, 0x3000):
        gpa, level = translate_guest(world.words, world.cr3, 4, world.nested_root, 4, gva + offset) or (0, 0)
        assert level == size + 1
        if translate(world.words, world.nested_root, 4, gpa) is None:
            rights = P | RW | US | A | D
            build(world.words, frames, world.nested_root, 4, gpa, 1, 1 << 36 | gpa, HOST_TABLE["npt"], rights)
    world.pages = [gva]
    return world


@pytest.mark.parametrize("size", [1, 2])
def test_invlpg_removes_every_splinter_of_a_large_page(size):
    # SDM vol. 3A §5.10.2.3 and §5.10.4.1: all TLB entries of the translation that the paging structures specify, also
    # where the processor cached it as several smaller pages.
    with Pair(splintered(size), ENTRY) as pair:
        gva = pair.world.pages[0]
        ours, theirs = pair.run(0, 0, [(gva + offset, 1, 0) for offset in (0, 0x1000, 0x3000)], 0, NEVER)
        assert ours == theirs
        assert ours[0] == "DONE"
        assert {key for name in TLBS for key, _ in kept(pair.cores[0], name)} == {
            (1, 0, gva + offset >> 12) for offset in (0, 0x1000, 0x3000)
        }
        invalidate_page(pair.cores, pair.vms[0][0][0].asid, gva + 0x2000, 9 * size)
        assert not any(kept(pair.cores[0], name) for name in TLBS)


def test_a_flush_of_an_asid_that_nobody_uses_changes_nothing():
    with warm(3, "npt", PREFIX) as pair:
        before = keyed(pair), caches(pair)
        flush_asid(pair.cores, np.int64(9 << ASID_SHIFT))
        assert (keyed(pair), caches(pair)) == before
