"""Is a line that another core's L2 holds served from there, at its own latency, and is it known who holds what?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.machine.drawn_tables import make_world
from tests.machine.geometries import PREFIX
from tests.machine.worlds import Pair
from vmsim.machine.held import held_words, hold, holds, release
from vmsim.machine.layout import Unit, make_llc

MORE = 9
ROOMY = replace(PREFIX, l2=Unit(4, 8), llc=Unit(8, 4), llc_victim=True, peer_extra=MORE)


@pytest.mark.parametrize(
    ("cores", "l2_sets", "l2_ways", "llc_sets", "words"),
    [
        (1, 1024, 16, 2048, 0),  # nobody else
        (2, 1024, 16, 2048, 32),
        (3, 1024, 16, 2048, 64),  # as four
        (2, 64, 2, 16, 16),  # lines of one set of the LLC lie in four of the L2
    ],
)
def test_there_is_room_for_what_all_l2s_may_hold_of_a_set(
    cores: int, l2_sets: int, l2_ways: int, llc_sets: int, words: int
) -> None:
    assert held_words(cores, l2_sets, l2_ways, llc_sets) == words


def test_a_line_is_held_as_often_as_it_was_taken() -> None:
    held = np.zeros(4, np.int64)
    for line in (0, 7, 0):  # line 0 is a line as any other
        hold(held, line)
    assert [holds(held, line) for line in (0, 7, 3)] == [True, True, False]
    release(held, 0)
    assert holds(held, 0)
    release(held, 0)
    release(held, 7)
    assert not held.any()


def test_only_an_llc_of_victims_under_several_cores_notes_who_holds_a_line() -> None:
    assert make_llc(ROOMY, 2)["notes"].shape == (8, 16)
    assert make_llc(ROOMY, 1)["notes"].shape == make_llc(PREFIX, 4)["notes"].shape == (8, 0)


def test_a_second_core_gets_the_first_s_lines_from_its_l2() -> None:
    """A walk of four references: from DRAM on one core, then from that core's L2 on the other."""
    world = make_world(1, "native", 4, 4, [1], [1], 0.0)
    with Pair(world, ROOMY, cores=2, vms=1) as pair:
        registers = pair.vms[0][0][0]
        cycles = []
        for core in (0, 1):
            before = int(registers.walk_cycles)
            pair.run(core, 0, [(world.pages[0], 1, 0)], 0, 1 << 60)
            cycles.append(int(registers.walk_cycles) - before)
        pair.check()
        flags = int(registers.counters[9]) * ROOMY.ad_cycles
        assert cycles[0] == ROOMY.walk_start + 4 * ROOMY.latency[3] + flags
        assert cycles[1] == ROOMY.walk_start + 4 * (ROOMY.latency[2] + MORE)
        assert registers.peer_refs.tolist() == [4, 0, 0]
        assert registers.peer_cycles.tolist() == [4 * MORE, 0, 0]
        assert registers.refs[1:5, 0].sum(axis=0).tolist() == [0, 0, 4, 4, 0]
