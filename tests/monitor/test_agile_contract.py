"""Does a guest under agile paging see what it would see on bare hardware, whatever it does to its tables?"""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.monitor.agile_world import ENDS, AgileWorld
from tests.monitor.world import OWNER
from tests.oracle.bits import PS, RW, US, A, D, P, reach, span
from vmsim.contracts import VmStopped
from vmsim.frames.records import State
from vmsim.machine.formats import FRAME
from vmsim.monitor.agile.mode import AgileSpec

CASES: list[dict[str, Any]] = [
    {"threshold": 1, "back": "clean", "levels": 4, "host_order": 0, "chunk": 1, "limit": 1024, "root_cache": 0},
    {"threshold": 2, "back": "clean", "levels": 5, "host_order": 9, "chunk": 512, "limit": 16, "root_cache": 1},
    {"threshold": 2, "back": "all", "levels": 4, "host_order": 9, "chunk": 3, "limit": 1024, "root_cache": 2},
    {"threshold": 3, "back": "clean", "levels": 4, "host_order": 0, "chunk": 1, "limit": 16, "root_cache": 2},
    {"threshold": 2, "back": "clean", "levels": 3, "host_order": 0, "chunk": 1, "limit": 1024, "root_cache": 0},
    {"threshold": 1, "back": "all", "levels": 3, "host_order": 9, "chunk": 3, "limit": 16, "root_cache": 1},
]
# Two frames for tables of each level, from the roots down; each may be pointed to from wherever its level allows.
# What a guest's entries hold is what an operating system could write: hardware that walks them itself checks no more.
FIRST = 8
INDICES = [0, 1, 2, 511]
DATA = [600, 601, 1023, 1024, 1536]
LARGE = [512, 1024, 1536]
flags = st.sampled_from([P, P | US, P | RW | US, P | RW | US | A, P | RW | US | A | D, P | US | A, 0])
depths = st.integers(0, 4)  # from the root: below the last level there is data
edits = st.tuples(depths, st.integers(0, 1), st.sampled_from(INDICES), st.integers(0, 4), flags, st.booleans())
mapped = st.sampled_from([(0, 0, 0, 0, 0), (1, 0, 0, 0, 0), (2, 0, 0, 0, 0), (0, 1, 0, 0, 0), (2, 1, 0, 0, 0)])
addresses = st.one_of(mapped, mapped, st.tuples(*[st.sampled_from(INDICES)] * 5))
steps = st.one_of(
    st.tuples(st.just("access"), addresses, st.booleans()),
    st.tuples(st.just("access"), addresses, st.booleans()),
    st.tuples(st.just("edit"), st.lists(edits, min_size=1, max_size=5), st.booleans()),
    st.tuples(st.just("load"), st.lists(st.tuples(depths, st.integers(0, 1), st.sampled_from(INDICES)), max_size=6)),
    st.tuples(st.just("root"), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("clear"), depths, st.integers(0, 1)),
    st.tuples(st.just("hammer"), depths, st.integers(0, 1), mapped),
    st.tuples(st.just("tick"), st.integers(1, 2)),
)


def table(world: AgileWorld, depth: int, which: int) -> int:
    """Return the gpa of one of the two tables at a depth; the deepest for depths beyond."""
    return (FIRST + 2 * min(depth, world.bare.levels - 1) + which) << 12


def entry_for(world: AgileWorld, depth: int, choice: int, bits: int, large: bool) -> int:
    level = world.bare.levels - min(depth, world.bare.levels - 1)
    if level == 1:
        return DATA[choice] << 12 | bits
    if level == 2 and large:
        return LARGE[choice % 3] << 12 | PS | bits
    return table(world, depth + 1, choice & 1) | (bits & P if level == 3 == world.bare.levels else bits)


def gva_of(indices: tuple[int, ...], levels: int) -> int:
    parts = zip(indices, range(1, levels + 1), strict=False)
    return sum(number * span(level) for number, level in parts) % reach(levels)


def start(case: dict[str, Any], **rest: Any) -> AgileWorld:
    """Return a world with two address spaces that share their lower tables: three pages, and a large one."""
    spec = AgileSpec(threshold=case["threshold"], back=case["back"], root_cache=case["root_cache"])
    world = AgileWorld(
        spec,
        limit=case["limit"],
        levels=case["levels"],
        host_order=case["host_order"],
        chunk=case["chunk"],
        pcid=True,
        **rest,
    )
    for which in (0, 1):
        chain = [table(world, 0, which), *(table(world, depth, 0) for depth in range(1, case["levels"]))]
        rights = [P if case["levels"] == 3 else P | RW | US, *[P | RW | US] * 4]  # PAE's PDPTEs have none but P
        world.store(*((above, below | bits) for (above, below), bits in zip(pairwise(chain), rights, strict=False)))
    bottom, above = table(world, 9, 0), table(world, case["levels"] - 2, 0)
    world.store(*((bottom + 8 * n, DATA[n] << 12 | P | RW | US) for n in range(3)))
    world.store((above + 8, 1024 << 12 | PS | P | RW | US))
    world.load_root(table(world, 0, 0))
    return world


def play_step(world: AgileWorld, each: tuple[Any, ...]) -> None:
    step, *what = each
    if step == "access":
        world.access(gva_of(what[0], world.bare.levels), what[1])
        return
    if step == "load":
        world.load(*(table(world, depth, which) + 8 * at for depth, which, at in what[0]))
    elif step == "edit":
        world.store(
            *(
                (table(world, depth, which) + 8 * at, entry_for(world, depth, choice, bits, large))
                for depth, which, at, choice, bits, large in what[0]
            )
        )
        world.flush() if what[1] else world.invalidate(0, ENDS)
    elif step == "root":
        world.load_root(table(world, 0, what[0]), keep=False)
    elif step == "hammer":  # until the table goes over, and a walk leads to it
        world.store(*[(table(world, *what[:2]) + 8 * 300, 0)] * 3)
        world.access(gva_of(what[2], world.bare.levels))
    elif step == "tick":
        for _ in range(what[0]):
            world.tick()
    else:
        world.clear(table(world, max(1, what[0]), what[1]) >> 12)
        world.flush()
    world.audit()
    world.conserved()


def play(world: AgileWorld, program: list[Any]) -> None:
    for each in program:
        play_step(world, each)
    world.load(*(table(world, depth, which) + 8 * at for depth in range(5) for which in (0, 1) for at in INDICES))
    world.audit()
    world.conserved()


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
@given(program=st.lists(steps, min_size=4, max_size=24))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_guest_cannot_tell(case: dict[str, Any], program: list[Any]) -> None:
    play(start(case), program)


words_anywhere = st.tuples(depths, st.integers(0, 1), st.sampled_from(INDICES), st.integers(-(1 << 63), (1 << 63) - 1))


@pytest.mark.parametrize("case", CASES[:2], ids=["small", "large"])
@given(words=st.lists(words_anywhere, max_size=12))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_a_guest_writes_leads_to_frames_of_its_own(case: dict[str, Any], words: list[Any]) -> None:
    world = start(case)
    for depth, which, at, word in words:
        place = np.array([table(world, depth, which) + 8 * at])
        world.drive(world.shadow.write(world.vcpu, place, np.array([word])))
        world.flush()
        for indices in ((at, 0, 0, 0, 0), (0, at, 0, 0, 0), (0, 0, at, 0, 0), (0, 0, 0, at, 0)):
            with suppress(VmStopped):  # the end of the VM, whose tables lead beyond its memory
                world.attempt(gva_of(indices, case["levels"]), write=word & 1 == 0)
            for unit in ("l1_tlb0", "l1_tlb1", "l1_tlb2"):
                tlb = world.cores[0][unit]
                pfns = (tlb["value"][tlb["tag"] >= 0] & FRAME) >> 12
                assert (world.host.frames["owner"][pfns] == OWNER).all()
                assert (world.host.frames["state"][pfns] == State.GUEST).all()
