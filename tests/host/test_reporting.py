"""Does a guest tell its host of free blocks, as mm/page_reporting.c does, and does the host have their frames?"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from tests.host.test_balloon import HOST, MODES, figures, long
from tests.simulation.small import PAGE, WRITE, Script, Threads, run, scenario, touches, vm
from vmsim.engine.simulation import Simulation
from vmsim.frames.buddy import allocate, free, make_zone
from vmsim.frames.records import LARGEST_REPORTED, NO_FRAME, REPORTED, State
from vmsim.frames.reported import any_unreported, count_listed, isolate, put_back
from vmsim.guest.reporting import CAPACITY, min_watermark


def reporting(**keys: Any) -> dict[str, Any]:
    return {"reporting": True, "reporting_order": 2, "reporting_delay": "300us"} | keys


def blocks(zone: np.ndarray, frames: np.ndarray) -> dict[tuple[int, int], bool]:
    """Return the free blocks, those larger than Linux's as parts of its size, and whether each was reported."""
    found = {}
    for mobility, order in np.ndindex(zone["heads"][0].shape):
        block, last = int(zone["heads"][0][mobility, order]), NO_FRAME
        while block != NO_FRAME:
            size = min(order, LARGEST_REPORTED)
            for first in range(block, block + (1 << order), 1 << size):
                found[first, size] = bool(frames["owner"][first] == REPORTED)
            last, block = block, int(frames["next"][block])
        if last != NO_FRAME:
            assert zone["tails"][0][mobility, order] == last
    return found


class Twin:
    """Which free blocks were reported, by the rules alone: a block that is split, merged or handed out was not."""

    def __init__(self) -> None:
        self.reported: set[tuple[int, int]] = set()

    def changed(self, now: dict[tuple[int, int], bool]) -> None:
        self.reported &= now.keys()


@pytest.mark.parametrize("seed", range(4))
def test_what_was_reported_is_known_until_it_is_used_or_merges(seed: int) -> None:
    random = Random(seed)
    zone, frames = make_zone(5000)
    twin, taken, scratch = Twin(), list[tuple[int, int]](), np.empty(1, np.int64)
    seen = False
    for _ in range(600):
        what = random.random()
        if what < 0.45:
            order = random.choice((0, 0, 1, 3, 9))
            state = random.choice((State.GUEST, State.TABLE))
            first = int(allocate(zone, frames, order, int(state), 1))
            if state is State.TABLE and frames["owner"][0] == 0:  # frame 0 was looked at, and listed anew
                twin.reported = {each for each in twin.reported if each[0]}
            if first != NO_FRAME:
                taken.append((first, order))
        elif what < 0.85 and taken:
            first, order = taken.pop(random.randrange(len(taken)))
            free(zone, frames, first, order)
            twin.reported = {each for each in twin.reported if each[0] != first or each[1] != order}
        else:
            order, mobility = random.choice((0, 1, 3, 9, 10)), random.randrange(2)
            before = blocks(zone, frames)
            firsts = np.empty(random.randint(1, 5), np.int64)
            count = int(isolate(zone, frames, order, mobility, 1, 100, firsts))
            assert all(not before[first, order] for first in firsts[:count].tolist())
            wanted = [each for each, done in before.items() if each[1] == order and not done]
            assert count <= min(len(wanted), len(firsts))
            assert (frames["state"][firsts[:count]] == State.HOST).all()
            put_back(zone, frames, firsts[:count], np.full(count, order))
            now = blocks(zone, frames)
            twin.reported |= {(int(first), order) for first in firsts[:count] if (int(first), order) in now}
        now = blocks(zone, frames)
        twin.changed(now)
        assert {each for each, done in now.items() if done} == twin.reported
        for order in (0, 3, 9, 10):
            assert int(count_listed(zone, frames, order)) == sum(each[1] == order for each in now)
            unreported = any(each[1] >= order and not done for each, done in now.items())
            assert bool(any_unreported(zone, frames, order, scratch)) == unreported
        assert int(zone["free"][0]) == sum(1 << order for _, order in now)
        seen = seen or bool(twin.reported)
    assert seen


def test_the_watermark_is_linuxs() -> None:
    """linux_watermarks.csv: 1 GiB keeps 4,096 KiB free, 16 GiB 16,384."""
    assert min_watermark((1 << 30) // PAGE) == 4096 // 4
    assert min_watermark((16 << 30) // PAGE) == 16384 // 4


def reported_frames(simulation: Simulation) -> None:
    """See that no block that is marked as reported has memory."""
    machine = simulation.vms[0]
    if machine.gone or not machine.slot:
        return
    for (first, order), done in blocks(machine.frames.zone, machine.frames.frames).items():
        assert not (done and (machine.slot.backing[first : first + (1 << order)] & 1).any())


@pytest.mark.parametrize("mode", MODES)
def test_what_a_guest_frees_is_the_hosts_a_delay_later_in_every_mode(mode: str) -> None:
    """All memory is backed; what stays is what the program has, what stands ready, and blocks of less than 4 pages."""
    table = vm(mode=mode, populate="eager", vcpus=2)
    streams = [Threads([Script(long(9000)), Script(long(9000))])]
    _, calm = run(scenario(table, **HOST), streams)
    what = scenario(table | {"balloon": reporting()}, **HOST)
    simulation, outcome = run(what, streams, every=600_011, look=reported_frames, events=10**6)
    assert outcome.ending is None
    assert outcome.vms[0].counters["accesses"] == calm.vms[0].counters["accesses"]
    memory, counts = outcome.vms[0].memory, figures(outcome, "reporting")
    assert memory["guest"] < 1024 - 800
    assert figures(outcome, "balloon")["freed"] == figures(outcome, "balloon")["reported"] == counts["pages"]
    first = next(each for each in outcome.transfers if each.what == "report")
    cost, delay = what.cpu.cost, what.cpu.frequency * 300 // 1_000_000
    least = cost.balloon_message + first.pages * cost.discard_page
    assert delay < first.time - least < delay * 17 // 16 + 4_000 * first.pages  # calls and kicks, 4,000 cycles at most
    assert -(-counts["blocks"] // CAPACITY) <= counts["reports"] <= counts["passes"]
    assert simulation.host.free == simulation.host.size - sum(simulation.host.count(-1).values())


def test_a_pass_reports_a_sixteenth_of_a_list_and_32_blocks_more() -> None:
    """2,048 single pages are free, between pages in use: a sixteenth of them are 128, in reports of 32."""
    pages = 4096
    steps = [*touches(range(pages), WRITE), *(("unmap", page, 1) for page in range(0, pages, 2))]
    steps += [("touch", 1, WRITE, 2000) for _ in range(4000)]
    keys = reporting(reporting_order=0, reporting_delay="2ms")
    what = scenario(vm(memory=f"{(pages + 300) * 4}KiB", balloon=keys), **HOST)
    _, outcome = run(what, [Script(steps)], events=10**6)
    counts = figures(outcome, "reporting")
    per_pass = counts["blocks"] / counts["passes"]
    assert counts["passes"] > 1
    assert per_pass <= CAPACITY * (-(-2300 // (CAPACITY * 16)) + 12)  # the shares of lists of larger blocks, too


def test_a_guest_with_little_free_memory_reports_nothing() -> None:
    """Below the low watermark and 32 blocks nothing is taken out of the allocator (page_reporting_process_zone)."""
    what = scenario(vm(memory="16MiB", balloon={"reporting": True, "reporting_delay": "100us"}), **HOST)
    _, outcome = run(what, [Script(long(2000))])
    counts = figures(outcome, "reporting")
    assert counts["few"] == counts["passes"] > 0
    assert counts["reports"] == 0


def test_a_page_that_was_reported_comes_back_by_a_violation_like_any_other() -> None:
    """The program frees 800 pages, of which 384 stand ready at most; others are reported, and touched again."""
    steps = [*touches(range(800), WRITE), ("unmap", 0, 800), *(("touch", 900, WRITE, 2000) for _ in range(4000))]
    steps += touches(range(800), WRITE)
    _, calm = run(scenario(vm(), **HOST), [Script(steps)])
    keys = reporting(reporting_order=0)
    _, outcome = run(scenario(vm(balloon=keys), **HOST), [Script(steps)], every=500_009, look=reported_frames)
    more = figures(outcome, "exits")["EPT_VIOLATION"] - figures(calm, "exits")["EPT_VIOLATION"]
    returned = figures(outcome, "balloon")["freed"]
    assert 800 - 384 - 8 <= more <= returned
