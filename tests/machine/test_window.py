"""Does the out-of-order window take the time that closed formulas give?"""

from __future__ import annotations

from random import Random

import pytest

from tests.machine.geometries import PREFIX
from tests.oracle.window import Window
from vmsim.machine.layout import WINDOW, make_cores, make_vm
from vmsim.machine.window import drain, pass_through


class Ours:
    """The machine's window, called as Python."""

    def __init__(self, accesses, walkers=64, buffers=64):
        self.core = make_cores(PREFIX, 1)[0]
        self.core.walkers, self.core.fill_buffers = walkers, buffers
        self.vm = make_vm()[0]
        self.vm.in_flight = accesses

    def access(self, work, look_up=0, walk=0, miss=0, *, times=1, fetch=False):
        return int(pass_through(self.core, self.vm, times, work, look_up, walk, miss, fetch))

    def drain(self):
        drain(self.vm)


@pytest.mark.parametrize(("count", "latency"), [(1, 200), (7, 200), (64, 90)])
def test_independent_misses_that_the_window_holds_take_the_time_of_one(count, latency):
    window = Ours(accesses=64)
    assert sum(window.access(0, miss=latency) for _ in range(count)) == latency


def test_misses_beyond_the_window_wait_for_room():
    """So many at once: 100 misses in a window of 8 are 13 rounds (Karkhanis and Smith, isolated misses)."""
    window = Ours(accesses=8)
    assert sum(window.access(0, miss=300) for _ in range(100)) == 13 * 300


@pytest.mark.parametrize("gap", [15, 16, 40, 1000])
def test_a_miss_hides_as_much_work_as_the_window_holds(gap):
    """A miss, and so many hits after it, each with a cycle of work: those up to the window's end are hidden."""
    latency, accesses = 200, 16
    window = Ours(accesses)
    rounds = [window.access(1, miss=latency) + window.access(1, times=gap) for _ in range(50)]
    assert rounds[1:] == [latency + gap + 1 - accesses] * 49


def test_as_many_misses_overlap_as_fit_the_window():
    """Every fourth access of a window of 16: the last of 50 is the second of the thirteenth four."""
    window = Ours(accesses=16)
    assert sum(window.access(1, miss=200) + window.access(1, times=3) for _ in range(50)) == 13 * 200 + 5


@pytest.mark.parametrize("walkers", [1, 2, 6])
def test_walks_are_served_by_so_many_walkers(walkers):
    window = Ours(accesses=WINDOW, walkers=walkers)
    count, walk = 60, 110
    assert sum(window.access(0, walk=walk) for _ in range(count)) == count // walkers * walk


def test_lines_wait_for_a_fill_buffer():
    window = Ours(accesses=WINDOW, buffers=10)
    assert sum(window.access(0, miss=250) for _ in range(40)) == 4 * 250


def test_a_walk_comes_before_its_line_and_beside_those_of_others():
    window = Ours(accesses=WINDOW, walkers=2)
    walk, miss, count = 100, 200, 40
    assert sum(window.access(0, walk=walk, miss=miss) for _ in range(count)) == count // 2 * walk + miss


def test_what_hits_takes_its_dispatch_alone():
    window = Ours(accesses=4)
    assert [window.access(7) for _ in range(5)] == [7] * 5
    assert window.access(7, times=1000) == 7000


def test_a_fetch_holds_up_what_comes_after_it():
    window = Ours(accesses=WINDOW)
    assert window.access(2, miss=90, fetch=True) == 92
    assert window.access(2, miss=90) == 92


def test_nothing_overlaps_across_a_drain():
    window = Ours(accesses=WINDOW, walkers=1)
    taken = []
    for _ in range(10):
        taken.append(window.access(3, walk=50, miss=100))
        window.drain()
    assert taken == [153] * 10


@pytest.mark.parametrize("seed", range(6))
def test_any_stream_takes_what_the_twin_takes_and_no_more_than_one_after_the_other(seed):
    """Nor less than walkers and buffers need, than its work, and than its longest access."""
    random = Random(seed)
    accesses, walkers, buffers = random.choice([1, 3, 20, WINDOW]), random.choice([1, 2]), random.choice([1, 4])
    ours, twin = Ours(accesses, walkers, buffers), Window(accesses, walkers, buffers)
    serial, taken, walked, missed = 0, 0, 0, 0
    for _ in range(400):
        if random.random() < 0.02:
            ours.drain()
            twin.drain()
        times, work = random.choice([1, 1, 1, 2, 50]), random.choice([0, 1, 9])
        parts = random.choice([0, 7]), random.choice([0, 0, 60]), random.choice([0, 14, 300])
        fetch = random.random() < 0.1
        cycles = ours.access(work, *parts, times=times, fetch=fetch)
        theirs = twin.access(work, *parts, fetch=fetch) + sum(twin.access(work, fetch=fetch) for _ in range(times - 1))
        assert cycles == theirs
        assert 0 <= cycles <= times * work + sum(parts)
        serial, taken = serial + times * work + sum(parts), taken + cycles
        walked, missed = walked + parts[1], missed + parts[2]
    assert max(walked / walkers, missed / buffers) <= taken < serial
