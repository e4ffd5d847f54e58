"""Does a guest under any shadow monitor see what it would see on bare hardware, whatever it does to its tables?"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.monitor.world import World, all_pairs
from tests.oracle.bits import PS, RW, US, A, D, P, reach, span, width
from vmsim.monitor.shadow.mode import ShadowSpec

FRAMES = 2048
CHOICES: dict[str, list[Any]] = {
    "fill": ["lazy", "eager"],
    "trap": ["single-step", "emulate", "unsync"],
    "hide": ["write-protect", "user-bit", "present-bit"],
    "on_cr3": ["flush", "cache"],
    "ad": ["write-protect", "read-sync"],
    "write_flood": [0, 1, 3],
    "limit": [16, 1024],
    "chunk": [1, 3, 512],
    "host_order": [0, 9],
    "levels": [2, 3, 4, 5],
    "entries": [0, 4],
}


def allowed(each: dict[str, Any]) -> bool:
    return each["ad"] == "write-protect" or (each["hide"] != "write-protect" and each["trap"] != "unsync")


CASES = all_pairs(CHOICES, allowed)


def name_of(each: dict[str, Any]) -> str:
    return "-".join(str(value) for value in each.values())


# Two frames for tables of each level, two of them roots; any may be put anywhere. Data, large pages too, lies above.
TABLES = list(range(8, 18))
INDICES = [0, 1, 2, 511, 512, 1023]  # the last two of tables of 1,024 entries alone
DATA = [600, 601, 1023, 1024, 1536]
flags = st.sampled_from([P, P | US, P | RW | US, P | RW | US | A, P | RW | US | A | D, P | US | A, 0])
entries = st.one_of(
    st.builds(lambda gfn, bits: gfn << 12 | bits, st.sampled_from(TABLES), flags),
    st.builds(lambda gfn, bits: gfn << 12 | bits, st.sampled_from(DATA), flags),
    st.builds(lambda gfn, bits: gfn << 12 | bits | PS, st.sampled_from([512, 1024, 1536, 0]), flags),
    st.just(0),
    st.integers(-(1 << 63), (1 << 63) - 1),
)
edits = st.tuples(st.sampled_from(TABLES), st.sampled_from(INDICES), entries)
mapped = st.sampled_from([(0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (2, 0, 0, 0, 0), (0, 1, 0, 0, 0), (2, 1, 0, 0, 0)])
addresses = st.one_of(mapped, mapped, st.tuples(*[st.sampled_from(INDICES)] * 5))
steps = st.one_of(
    st.tuples(st.just("access"), addresses, st.booleans()),
    st.tuples(st.just("access"), addresses, st.booleans()),
    st.tuples(st.just("edit"), st.lists(edits, min_size=1, max_size=5), st.booleans()),
    st.tuples(st.just("load"), st.lists(st.tuples(st.sampled_from(TABLES), st.sampled_from(INDICES)), max_size=6)),
    st.tuples(st.just("root"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("clear"), st.sampled_from(TABLES[2:])),
)


def gva_of(indices: tuple[int, ...], levels: int) -> int:
    bits = width(levels)
    parts = zip(indices, range(1, levels + 1), strict=False)
    return sum(number % 2**bits * span(level, bits) for number, level in parts) % reach(levels)


def rights(gfn: int, levels: int) -> int:
    """Return the bits of an entry for a table: PAE's PDPTEs have none but P."""
    return P if levels == 3 and gfn in TABLES[:2] else P | RW | US


def large(levels: int) -> int:
    """Return where the worlds have a large page: at entry 1 of a table of level 2."""
    return span(2, width(levels))


def start(case: dict[str, Any], **rest: Any) -> World:
    """Return a world with two address spaces of three pages each that share the lowest table."""
    spec = ShadowSpec(**{name: case[name] for name in ShadowSpec.model_fields if name in case})
    levels = case["levels"]
    world = World(
        spec,
        frames=FRAMES,
        levels=levels,
        host_order=case["host_order"],
        chunk=case["chunk"],
        entries=case["entries"],
        **rest,
    )
    below = TABLES[2:]
    for root in TABLES[:2]:
        chain = [root, *below[: levels - 1]]
        world.store(*(((a << 12), b << 12 | rights(a, levels)) for a, b in pairwise(chain)))
        world.store((world.bare.place(chain[-2] << 12, large(levels), 2), 1024 << 12 | PS | P | RW | US))
    bottom = below[levels - 2]
    world.store(*((world.bare.place(bottom << 12, n << 12, 1), DATA[n] << 12 | P | RW | US) for n in range(3)))
    world.load_root(TABLES[0] << 12)
    return world


def place(world: Any, gfn: int, at: int) -> int:
    """Return the gpa of an entry of a table."""
    return (gfn << 12) + world.bare.size * (at % 2**world.bare.width)


def play_step(world: World, each: tuple[Any, ...]) -> None:
    step, *what = each
    if step == "access":
        world.access(gva_of(what[0], world.bare.levels), what[1])
        return
    if step == "load":
        world.load(*(place(world, gfn, at) for gfn, at in what[0]))
    elif step == "edit":
        world.store(*((place(world, gfn, at), value) for gfn, at, value in what[0]))
        world.flush() if what[1] else world.invalidate()
    elif step == "root":
        world.load_root(TABLES[what[0]] << 12, keep=what[1])
    else:
        world.clear(what[0])
        world.flush()
    world.audit()


def play(world: World, program: list[Any]) -> None:
    for each in program:
        play_step(world, each)
    world.load(*(place(world, gfn, at) for gfn in TABLES for at in INDICES))
    world.audit()
    world.conserved()


@pytest.mark.parametrize("case", CASES, ids=name_of)
@given(program=st.lists(steps, min_size=4, max_size=24))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_guest_cannot_tell(case: dict[str, Any], program: list[Any]) -> None:
    play(start(case), program)


def test_the_shadow_is_not_empty() -> None:
    """Or the contract above would hold for nothing."""
    for case in CASES:
        world = start(case)
        for page in range(3):
            assert world.access(page << 12, write=page == 1) is None
        assert world.access(large(case["levels"]), write=True) is None
        assert world.audit() >= 4
        world.conserved()
        assert np.count_nonzero(world.shadow.pages["level"]) >= (case["levels"] if case["levels"] > 3 else 2)
