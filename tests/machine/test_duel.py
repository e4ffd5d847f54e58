"""Does a cache whose sets duel follow the policy that misses less, and change its mind?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.machine.geometries import PREFIX
from tests.oracle.replacement import DUEL, duelling
from vmsim.jit import kernel
from vmsim.machine import layout, sets
from vmsim.machine.layout import Unit
from vmsim.machine.replacement import policy_of
from vmsim.machine.replacement.duel import COUNTER, MIDDLE

SETS, WAYS = 64, 16
LEADERS = (range(0, 8), range(8, 16))
GEOMETRY = replace(PREFIX, llc=Unit(SETS, WAYS, 0, policy_of(DUEL)), llc_leaders=LEADERS)


@kernel
def hits(llc, lines, mask):
    """Bring lines; return how many were there, of sets that follow."""
    found = 0
    for line in lines:
        index = np.uint64(line % len(llc))
        was_there, _ = sets.bring_by_duel(llc[index], llc[np.uint64(0)], line, mask)
        found += was_there and index >= 16
    return found


def cycle(length: int, rounds: int) -> np.ndarray:
    """Lines that go round in each set, so many of them."""
    return np.tile(np.arange(length * SETS), rounds)


def share(llc: Any, lines: np.ndarray) -> float:
    return hits(llc, lines, -1) / (len(lines) * (SETS - 16) / SETS)


def counter(llc: Any) -> int:
    return int(llc["notes"][0, COUNTER])


def test_lines_that_go_round_and_do_not_fit_are_kept_in_part() -> None:
    """Of 20 lines in turn that do not fit 16 ways the first policy has none when it is wanted."""
    llc = layout.make_llc(GEOMETRY)
    assert counter(llc) < MIDDLE
    share(llc, cycle(20, 40))
    assert counter(llc) > MIDDLE
    assert share(llc, cycle(20, 40)) > 0.4
    alone = layout.make_llc(replace(GEOMETRY, llc_leaders=(range(SETS), ())))
    share(alone, cycle(20, 40))
    assert share(alone, cycle(20, 40)) < 0.1


def test_it_changes_its_mind_when_what_is_new_is_used_again() -> None:
    """Each line is used twice, some lines of its set after it came in, and never again."""
    llc = layout.make_llc(GEOMETRY)
    share(llc, cycle(20, 60))
    assert counter(llc) > MIDDLE
    new = np.arange(400) + 1000
    twice = np.concatenate([[line, line - 6] for line in new])
    share(llc, np.concatenate([line * SETS + np.arange(SETS) for line in twice]))
    assert counter(llc) < MIDDLE


@pytest.mark.parametrize("seed", range(3))
def test_sets_do_as_the_twin_s(seed: int) -> None:
    geometry = replace(GEOMETRY, llc=Unit(8, 4, 0, policy_of(DUEL)), llc_leaders=([0, 5], [3]), seed=seed)
    llc = layout.make_llc(geometry)
    twin = duelling(geometry.llc, geometry.llc_leaders, llc["notes"][:, 2].copy())
    random = np.random.default_rng(seed)
    llc["notes"][0, COUNTER] = twin.policies[0].score[0] = 505 + 4 * seed  # near the middle: it is passed
    for line in random.integers(0, 48, 1500).tolist():
        was_there = twin.get(line, line) is not None
        gone = None if was_there else twin.put(line, line, True)
        ours = sets.bring_by_duel(llc.view(np.recarray)[line % 8], llc.view(np.recarray)[0], line, -1)
        assert ours == (was_there, -1 if gone is None else gone)
        assert counter(llc) == twin.policies[0].score[0]
