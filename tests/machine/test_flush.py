"""Does an invalidation remove what its manual says, and no more?"""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tests.machine.geometries import ENTRY, GEOMETRIES, PREFIX
from tests.machine.worlds import Pair, World, contents, lines, make_world
from vmsim.machine.flush import flush_asid, invalidate_page

NEVER = 1 << 60
KEYED = [f"{level}_tlb{n}" for level in ("l1", "l2") for n in range(3)]
GUEST_WALK = ["pde", "pdpte", "pml4e", "pml5e"]
NESTED_WALK = [f"nested_{name}" for name in GUEST_WALK] + ["ntlb"]


def warm(seed: int, mode: str, geometry, guest_sizes=(1,), host_sizes=(1,)) -> Pair:
    """Return two cores, warmed by two VMs."""
    pair = Pair(make_world(seed, mode, 4, 4, list(guest_sizes), list(host_sizes), 0.0), geometry, cores=2, vms=2)
    random = Random(seed)
    for core in range(2):
        for vm in range(2):
            runs = [(random.choice(pair.world.pages), 1, random.choice([0, 1])) for _ in range(25)]
            cursor = 0
            while cursor < len(runs):
                (reason, cursor, *_), _ = pair.run(core, vm, runs, cursor, NEVER)
                cursor += reason != "DONE"
    return pair


def snapshot(pair: Pair):
    units = [*KEYED, *GUEST_WALK, *NESTED_WALK]
    kept = [{name: sum(contents(core, name), []) for name in units} for core in pair.cores]
    caches = [[lines(core["l1"]), lines(core["l2"])] for core in pair.cores]
    return kept, caches, lines(pair.llc[0].sets)


@pytest.mark.parametrize("mode", ["native", "npt"])
@given(seed=st.integers(0, 1 << 20))
def test_flushing_an_asid_removes_all_of_it_and_nothing_else(mode, seed):
    pair = warm(seed, mode, PREFIX)
    before, *caches = snapshot(pair)
    flush_asid(pair.cores, pair.vms[0][0][0].asid)
    after, *caches_after = snapshot(pair)
    pair.close()
    assert caches_after == caches  # physical addresses are not the address space's
    for core_before, core_after in zip(before, after, strict=True):
        assert any(key[0] == 1 for entries in core_before.values() for key, _ in entries)
        for name, entries in core_after.items():
            assert entries == [(key, value) for key, value in core_before[name] if key[0] != 1], name


@pytest.mark.parametrize("mode", ["native", "npt"])
@given(seed=st.integers(0, 1 << 20))
def test_invlpg_removes_one_page_and_the_walk_caches_of_its_address_space(mode, seed):
    pair = warm(seed, mode, PREFIX)
    before, *caches = snapshot(pair)
    gva = Random(seed).choice(pair.world.pages)
    invalidate_page(pair.cores, pair.vms[0][0][0].asid, gva)
    after, *caches_after = snapshot(pair)
    pair.close()
    assert caches_after == caches
    for core_before, core_after in zip(before, after, strict=True):
        for name in KEYED:
            kept = [each for each in core_before[name] if each[0] != (1, 0, gva >> 12)]
            assert core_after[name] == kept, name
        for name in GUEST_WALK:
            assert core_after[name] == [each for each in core_before[name] if each[0][0] != 1], name
        for name in NESTED_WALK:  # guest-physical mappings are not INVLPG's (SDM vol. 3C §29.4.3.1)
            assert core_after[name] == core_before[name], name


@given(seed=st.integers(0, 1 << 20), geometry=st.sampled_from(sorted(GEOMETRIES)), size=st.sampled_from([2, 3]))
def test_invlpg_removes_a_large_page(seed, geometry, size):
    pair = warm(seed, "native", GEOMETRIES[geometry], guest_sizes=(size,))
    gva = Random(seed).choice(pair.world.pages)
    invalidate_page(pair.cores, pair.vms[0][0][0].asid, gva ^ 0x5000)
    after, *_ = snapshot(pair)
    pair.close()
    shift = 12 + 9 * (size - 1)
    for core in after:
        keys = [key for name in KEYED for key, _ in core[name]]
        assert (1, size - 1, gva >> shift) not in keys


@given(seed=st.integers(0, 1 << 20), mode=st.sampled_from(["ept-ad", "npt"]))
def test_invlpg_empties_a_cache_of_entries_that_has_no_tags(seed, mode):
    pair = warm(seed, mode, ENTRY)
    assert any(contents(pair.cores[0], "pwc"))
    invalidate_page(pair.cores, pair.vms[0][0][0].asid, pair.world.pages[0])
    assert not any(entries for core in pair.cores for entries in contents(core, "pwc"))
    pair.close()


@pytest.mark.parametrize("size", [2, 3])
def test_invlpg_removes_every_splinter_of_a_large_page(size):
    # SDM vol. 3A §5.10.2.3: INVLPG invalidates all TLB entries of the translation that the paging structures specify,
    # also where the processor cached it as several smaller pages.
    pair = Pair(splintered(size), ENTRY)
    gva = pair.world.pages[0]
    runs = [(gva + offset, 1, 0) for offset in (0, 0x1000, 0x3000)]
    ours, theirs = pair.run(0, 0, runs, 0, NEVER)
    assert ours == theirs
    tlbs = [entry for name in KEYED for entry in sum(contents(pair.cores[0], name), [])]
    assert {key[1] for key, _ in tlbs} == {0}  # three 4 KiB pages of one large one
    invalidate_page(pair.cores, pair.vms[0][0][0].asid, gva)
    left = [entry for name in KEYED for entry in sum(contents(pair.cores[0], name), [])]
    pair.close()
    assert left == []


def splintered(size: int) -> World:
    """Return a guest with one large page on small host pages."""
    for seed in range(100):
        world = make_world(seed, "npt", 4, 4, [size], [1], 0.0)
        gva = next((page for page in world.pages if page % (1 << 20) < 0x1000 * 8), None)
        if gva is not None:
            break
    assert gva is not None
    world.pages = [gva]
    return with_neighbours(world, gva, size)


def with_neighbours(world: World, gva: int, size: int) -> World:
    """Back a few more of the large page's frames."""
    from tests.machine.worlds import HOST_TABLE
    from tests.oracle.bits import A, D, P, RW, US, span
    from tests.oracle.tables import Frames, build, translate, translate_guest

    frames = Frames(0xA_0000)
    for offset in (0, 0x1000, 0x3000):
        found = translate_guest(world.words, world.cr3, 4, world.nested_root, 4, gva + offset)
        assert found is not None
        gpa, level = found
        assert level == size
        assert span(level) > 4096
        if translate(world.words, world.nested_root, 4, gpa) is None:
            target = 1 << 41 | gpa
            build(
                world.words, frames, world.nested_root, 4, gpa, 1, target, HOST_TABLE["npt"], P | RW | US | A | D
            )
    return world


def test_a_flush_of_an_asid_that_nobody_uses_changes_nothing():
    pair = warm(3, "npt", PREFIX)
    before = snapshot(pair)
    flush_asid(pair.cores, np.int64(9 << 47))
    assert snapshot(pair) == before
    pair.close()
