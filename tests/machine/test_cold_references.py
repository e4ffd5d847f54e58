"""How many references does a cold walk make, and in which order?"""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import vmsim
from tests.machine.geometries import PREFIX
from tests.machine.worlds import HOST_TABLE, TABLE, World, memory
from tests.oracle import bits
from tests.oracle.tables import Frames, Words, build
from vmsim.machine.layout import make_cores, make_llc
from vmsim.machine.pwc import PwcStyle
from vmsim.machine.vcpu import run

GVA = 0x1234_5678_9ABC
GUEST_ROOT, NESTED_ROOT = 0x10_0000, 0x8000_0000
PUBLISHED = list(csv.DictReader((Path(vmsim.__file__).parent / "validation/data/reference_counts.csv").open()))
# Formats that the machine does not walk: rows to be covered when it does.
NOT_COVERED = {
    "PAE walked as 3 levels on 4-level",
    "32-bit guest on 4-level",
    "agile: 0 nested levels",
    "agile: 1 nested level",
    "agile: 2 nested levels",
    "agile: 3 nested levels",
    "agile: 4 nested levels",
}


def cold_walk(mode: str, guest_levels: int, nested_levels: int, guest_leaf: int, nested_leaf: int):
    """Walk once on a core with empty caches and no walk caches; return the references in order, and their count."""
    words: Words = {}
    root = GUEST_ROOT
    build(words, Frames(0x101), root, guest_levels, GVA, guest_leaf, 5 << 30, TABLE, TABLE | bits.A)
    if mode != "native":
        nested = Frames((NESTED_ROOT >> 12) + 1)
        place = 1 << 30  # the guest's first GiB lies at the host's second
        backed = {gpa >> 12 << 12: (gpa >> 12 << 12) + place for gpa in words} | {5 << 30: 9 << 30}
        backed[(5 << 30) + GVA % bits.span(guest_leaf)] = (9 << 30) + GVA % bits.span(guest_leaf)
        words = {gpa + place: word for gpa, word in words.items()}
        for gpa, hpa in backed.items():
            build(words, nested, NESTED_ROOT, nested_levels, gpa, nested_leaf, hpa, HOST_TABLE[mode], 0b111)
    world = World(words, mode, guest_levels, nested_levels, root, NESTED_ROOT, [GVA])
    if mode == "native":
        world.nested_levels = 0
    registers, _ = world.vm(asid=1)
    registers[0].logging = 1
    cores = make_cores(PREFIX, 1)
    cores["pwc_style"] = PwcStyle.NONE
    cores["ntlb_entries"] = 0
    there = memory()
    for hpa, word in words.items():
        there[hpa >> 3] = word
    one = np.array([GVA]), np.ones(1, np.int32), np.zeros(1, np.uint8)
    reason, *_ = run(cores, 0, make_llc(PREFIX), registers, there, *one, 0, 1, 1 << 60)
    for hpa in words:
        there[hpa >> 3] = 0
    assert reason == 0
    log = registers[0].log[: registers[0].logged]
    return [(int(where) >> 8, int(where) & 0xFF) for _, where, _ in log], int(registers[0].refs.sum())


def expected_order(guest_levels: int, nested_levels: int, guest_leaf: int, nested_leaf: int):
    """Bhargava et al. 2008, figure 1: each guest entry after the nested walk for its table, the data page's last."""
    nested = list(range(nested_levels, nested_leaf - 1, -1)) if nested_levels else []
    order = []
    for guest in range(guest_levels, guest_leaf - 1, -1):
        order += [(guest, level) for level in nested] + [(guest, 0)]
    return order + [(0, level) for level in nested]


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["case"])
def test_a_cold_walk_makes_the_published_number_of_references(row):
    if row["case"] in NOT_COVERED:
        assert int(row["guest_levels"]) < 4 or "agile" in row["case"]
        return
    guest, nested = int(row["guest_levels"]), int(row["nested_levels"])
    for mode in ("ept", "ept-ad", "npt") if nested else ("native",):
        _, count = cold_walk(mode, guest, nested, int(row["guest_leaf_level"]), int(row["nested_leaf_level"] or 1))
        assert count == int(row["references"])


def test_every_row_not_covered_is_a_published_one():
    assert {row["case"] for row in PUBLISHED} > NOT_COVERED
    assert len(PUBLISHED) - len(NOT_COVERED) == 9


@pytest.mark.parametrize(("guest", "nested"), [*product((4, 5), repeat=2)])
def test_a_cold_nested_walk_follows_the_formula_and_the_order_for_all_page_sizes(guest, nested):
    for guest_leaf, nested_leaf in product((1, 2, 3), repeat=2):
        order, count = cold_walk("npt", guest, nested, guest_leaf, nested_leaf)
        g, h = guest - guest_leaf + 1, nested - nested_leaf + 1
        assert count == (g + 1) * (h + 1) - 1
        assert order == expected_order(guest, nested, guest_leaf, nested_leaf)


@pytest.mark.parametrize("levels", [4, 5])
def test_a_cold_native_walk_makes_one_reference_a_level(levels):
    for leaf in (1, 2, 3):
        order, count = cold_walk("native", levels, 0, leaf, 1)
        assert order == [(level, 0) for level in range(levels, leaf - 1, -1)]
        assert count == len(order)
