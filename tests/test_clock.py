"""Does a simulation end when only daemons have anything left to do, and not before they have helped who they can?"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import simpy

from vmsim.base.clock import Clock

Steps = Generator[simpy.Event, Any, None]


def beat(clock: Clock, period: int, seen: list[int], **keys: bool) -> Steps:
    while True:
        yield clock.background(period, **keys)
        seen.append(clock.cycle)


def test_daemons_do_not_keep_a_simulation_going() -> None:
    clock, first, second = Clock(), list[int](), list[int]()
    clock.process(beat(clock, 10, first))
    clock.process(beat(clock, 7, second, frees=True))
    clock.timeout(35)
    clock.run()
    assert (first, second) == ([10, 20, 30], [7, 14, 21, 28])
    assert clock.cycle == 35
    assert clock.idle


def test_nothing_but_daemons_is_nothing() -> None:
    clock, seen = Clock(), list[int]()
    clock.process(beat(clock, 10, seen))
    clock.run()
    assert (clock.cycle, seen) == (0, [])


def test_what_a_daemon_does_in_the_foreground_is_waited_for() -> None:
    clock, done = Clock(), list[int]()

    def work() -> Steps:
        while True:
            yield clock.background(10)
            yield clock.timeout(7)
            done.append(clock.cycle)

    clock.process(work())
    clock.timeout(11)
    clock.run()
    assert (clock.cycle, done) == (17, [17])


def test_a_turn_is_one_of_each_daemon_that_may_free_memory() -> None:
    clock, quick, slow, other = Clock(), list[int](), list[int](), list[int]()
    for period, seen, frees in ((10, quick, True), (25, slow, True), (1000, other, False)):
        clock.process(beat(clock, period, seen, frees=frees))
    clock.run()
    clock.turn(clock.event())
    assert (quick, slow, other) == ([10, 20], [25], [])
    clock.turn(clock.event())
    assert (quick, slow) == ([10, 20, 30, 40], [25, 50])


def test_a_turn_ends_when_nobody_waits_any_more() -> None:
    clock, quick, slow = Clock(), list[int](), list[int]()
    over = clock.event()

    def help_others() -> Steps:
        yield clock.background(10, frees=True)
        over.succeed()

    clock.process(help_others())
    clock.process(beat(clock, 25, slow, frees=True))
    clock.run()
    clock.turn(over)
    assert (clock.cycle, slow, quick) == (10, [], [])


@pytest.mark.parametrize("until", [30, "event"])
def test_until_is_as_of_simpy(until: Any) -> None:
    clock, seen = Clock(), list[int]()
    clock.process(beat(clock, 10, seen))
    clock.run(until=clock.timeout(30) if until == "event" else until)
    assert clock.cycle == 30
    assert seen == [10, 20]
