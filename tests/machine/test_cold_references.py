"""How many references does a cold walk make, and in which order?"""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import vmsim
from tests.machine.geometries import PREFIX
from tests.machine.worlds import HOST_TABLE, TABLE, World, memory
from tests.oracle import bits
from tests.oracle.tables import Frames, Words, build, translate, within
from vmsim.machine.layout import make_cores, make_llc
from vmsim.machine.pwc import PwcStyle
from vmsim.machine.vcpu import run

GVA = 0x1234_5678_9ABC
DATA = 3 << 30  # gpa of the page
GUEST_ROOT, NESTED_ROOT = 0x10_0000, 0x8000_0000
PUBLISHED = list(csv.DictReader((Path(vmsim.__file__).parent / "validation/data/reference_counts.csv").open()))


def cold_walk(
    mode: str, guest_levels: int, nested_levels: int, guest_leaf: int, nested_leaf: int, switch: int | None = None
):
    """Walk once on a core with empty caches and no walk caches; return the references in order, and their count.

    An agile walk goes on nested from the guest's table of level `switch` (0: never, all is shadow).
    """
    words: Words = {}
    root = GUEST_ROOT
    gva = GVA % bits.reach(guest_levels)
    build(words, Frames(0x101), root, guest_levels, gva, guest_leaf, DATA, TABLE, TABLE | bits.A)
    if mode != "native":
        nested = Frames((NESTED_ROOT >> 12) + 1)
        place = 1 << 30  # the guest's first GiB lies at the host's second
        data = within(DATA, guest_levels, guest_leaf, gva)
        far = 0 if nested_levels == 2 else 6 << 30  # whose entries reach no further than 4 GiB
        backed = {gpa >> 12 << 12: (gpa >> 12 << 12) + place for gpa in words} | {data: data + far}
        words = {gpa + place: word for gpa, word in words.items()}
        for gpa, hpa in backed.items():
            build(words, nested, NESTED_ROOT, nested_levels, gpa, nested_leaf, hpa, HOST_TABLE[mode], 0b111)
    world = World(words, mode, guest_levels, nested_levels, root, NESTED_ROOT, [gva])
    if switch is not None:
        world = shadowed(world, switch)
    if mode == "native":
        world.nested_levels = 0
    registers, _ = world.vm(asid=1)
    registers[0].logging = 1
    cores = make_cores(PREFIX, 1)
    cores["pwc_style"] = PwcStyle.NONE
    cores["ntlb_entries"] = 0
    there = memory().view(np.uint64)
    for hpa, word in words.items():
        there[hpa >> 3] = word
    one = np.array([gva]), np.ones(1, np.int32), np.zeros(1, np.uint8)
    reason, *_ = run(cores, 0, make_llc(PREFIX), registers, memory(), *one, 0, 1, 1 << 60)
    for hpa in words:
        there[hpa >> 3] = 0
    assert reason == 0
    log = registers[0].log[: registers[0].logged]
    return [(int(where) >> 8, int(where) & 0xFF) for _, where, _ in log], int(registers[0].refs.sum())


def shadowed(world: World, switch: int) -> World:
    """Put a shadow table in the place of each of the guest's above level `switch`, on the way to GVA."""
    nested, table, tables = (world.nested_root, world.nested_levels), world.cr3, {}
    for level in range(world.levels, 0, -1):
        tables[level] = translate(world.words, *nested, table)[0]
        entry = world.words[tables[level] + 8 * bits.index(GVA, level)]
        table = entry & bits.ADDRESS
    if switch == world.levels:
        return replace(world, agile=True, cr3=tables[switch] | bits.SWITCH)
    target, flag = translate(world.words, *nested, table)[0], 0
    if switch:
        target, flag = tables[switch], bits.SWITCH
    frames = Frames(0xB_0000)
    root = table = frames.take()
    for level in range(world.levels, switch + 1, -1):
        below = frames.take()
        world.words[table + 8 * bits.index(GVA, level)] = below | TABLE
        table = below
    world.words[table + 8 * bits.index(GVA, switch + 1)] = target | TABLE | flag
    return replace(world, agile=True, cr3=root)


def expected_order(guest_levels: int, nested_levels: int, guest_leaf: int, nested_leaf: int):
    """Bhargava et al. 2008, figure 1: each guest entry after the nested walk for its table, the data page's last."""
    nested = list(range(nested_levels, nested_leaf - 1, -1)) if nested_levels else []
    order = []
    for guest in range(guest_levels, guest_leaf - 1, -1):
        order += [(guest, level) for level in nested] + [(guest, 0)]
    return order + [(0, level) for level in nested]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["case"])
def test_a_cold_walk_makes_the_published_number_of_references(row):
    agile = re.match(r"agile: (\d) nested level", row["case"])
    guest, nested = int(row["guest_levels"]), int(row["nested_levels"])
    every = ("ept", "ept-ad", "npt") if nested else ("native",)
    for mode in every if guest != 3 else ("npt",):  # "PAE walked": under EPT its first level is in registers
        leaves = int(row["guest_leaf_level"]), int(row["nested_leaf_level"] or 1)
        _, count = cold_walk(mode, guest, nested, *leaves, switch=int(agile[1]) if agile else None)
        assert count == int(row["references"])


@pytest.mark.parametrize(("guest", "nested"), [(2, 2), *product((2, 3, 4, 5), (3, 4, 5))])
def test_a_cold_nested_walk_follows_the_formula_and_the_order_for_all_page_sizes(guest, nested):
    leaves = range(1, bits.highest_leaf(guest) + 1), range(1, bits.highest_leaf(nested) + 1)
    for guest_leaf, nested_leaf in product(*leaves):
        order, count = cold_walk("npt", guest, nested, guest_leaf, nested_leaf)
        g, h = guest - guest_leaf + 1, nested - nested_leaf + 1
        assert count == (g + 1) * (h + 1) - 1
        assert order == expected_order(guest, nested, guest_leaf, nested_leaf)


@pytest.mark.parametrize(("guest", "nested"), [*product((4, 5), repeat=2)])
def test_an_agile_walk_is_the_shadows_down_to_the_switch_and_nested_from_there(guest, nested):
    for switch in range(guest + 1):
        order, count = cold_walk("ept", guest, nested, 1, 1, switch)
        shadow = [(level, 0) for level in range(guest, switch, -1)]
        whole = expected_order(guest, nested, 1, 1)
        below = whole[whole.index((switch, 0)) :] if switch else []
        assert order == shadow + below
        assert count == guest + nested * switch  # 4, 8, 12, 16, 20; nested throughout is 24


@pytest.mark.parametrize("nested", [4, 5])
def test_a_pae_guest_under_ept_finds_its_first_level_in_registers(nested):
    for mode in ("ept", "ept-ad"):
        for guest_leaf, nested_leaf in product((1, 2), (1, 2, 3)):
            order, count = cold_walk(mode, 3, nested, guest_leaf, nested_leaf)
            walked = expected_order(3, nested, guest_leaf, nested_leaf)
            assert order == walked[walked.index((3, 0)) + 1 :]
            assert count == (3 - guest_leaf + 1) * (nested - nested_leaf + 2) - 1  # as of 2 levels: 14 on 4, 4K on 4K


@pytest.mark.parametrize("nested", [4, 5])
def test_a_guest_of_two_levels_is_walked_whole_under_ept(nested):
    for mode in ("ept", "ept-ad"):
        for guest_leaf, nested_leaf in product((1, 2), (1, 2, 3)):
            order, count = cold_walk(mode, 2, nested, guest_leaf, nested_leaf)
            assert order == expected_order(2, nested, guest_leaf, nested_leaf)
            assert count == (2 - guest_leaf + 2) * (nested - nested_leaf + 2) - 1  # 14 and 17, 4K on 4K


@pytest.mark.parametrize("levels", [2, 3])
def test_a_native_walk_of_32_bits_makes_two_references(levels):
    """Of PAE's three levels the first is in registers."""
    assert cold_walk("native", levels, 0, 1, 1) == ([(2, 0), (1, 0)], 2)
    assert cold_walk("native", levels, 0, 2, 1) == ([(2, 0)], 1)


@pytest.mark.parametrize("levels", [4, 5])
def test_a_cold_native_walk_makes_one_reference_a_level(levels):
    for leaf in (1, 2, 3):
        order, count = cold_walk("native", levels, 0, leaf, 1)
        assert order == [(level, 0) for level in range(levels, leaf - 1, -1)]
        assert count == len(order)
