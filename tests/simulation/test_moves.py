"""Does a page that the host moves keep what is in it, and one that a device works on stay where it is?"""

from __future__ import annotations

import numpy as np
import pytest

from tests.simulation.small import BASE, PAGE, READ, Script, crowded, run, scenario, time_adds_up, touches, vm
from tests.simulation.test_contract import resolve
from vmsim.contracts import Flush
from vmsim.engine.simulation import Simulation
from vmsim.frames.records import State
from vmsim.host.guest_memory import GuestMemory
from vmsim.record.messages import Kind

ALL = range(600)


class Moves:
    """Every move of a page, and what was in the frame it left and in the one it went to afterwards."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[int, int, int]] = []  # old frame, new frame, words that are not 0
        self.lost = 0
        move = GuestMemory.move

        def seen(memory: GuestMemory, gfn: int, new: int) -> Flush:
            old, words = memory.frame_of(gfn), memory.page(gfn).copy()
            flush = move(memory, gfn, new)
            self.made.append((old, new, int(np.count_nonzero(words))))
            self.lost += not (memory.words[new << 9 : (new + 1) << 9] == words).all()
            return flush

        monkeypatch.setattr(GuestMemory, "move", seen)


def test_a_guest_whose_page_tables_are_moved_never_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """600 pages were touched, so 600 faults: none comes back after the moves."""
    moves = Moves(monkeypatch)
    what, streams = crowded([("compute", 120_000_000), *touches(ALL), *touches(ALL)])
    _, outcome = run(what, streams)
    assert outcome.ending is None
    assert moves.lost == 0
    assert sum(words > 0 for _, _, words in moves.made) >= 3  # tables: the root and what is below it
    assert outcome.vms[0].guest_faults == 600
    assert outcome.vms[3].figures.named("compaction")["pages_moved"] == len(moves.made) > 50
    assert time_adds_up(outcome)


def test_what_moved_is_what_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word is written to every page of io's before the moves, where its address leads, and read where it is then."""
    moves, found, gfns = Moves(monkeypatch), dict[int, int](), dict[int, int]()

    def look(simulation: Simulation) -> None:
        cycle = simulation.env.cycle
        if 55_000_000 < cycle < 60_000_000 and not found:
            slot = simulation.vms[0].slot
            assert slot
            held = {slot.frame_of(gfn): gfn for gfn in slot.present().tolist()}
            for page in ALL:
                reached = resolve(simulation, simulation.vms[0], BASE + page * PAGE)
                assert reached
                found[page], gfns[page] = reached[0], held[reached[0] >> 12]
                simulation.hardware.memory[found[page] >> 3] = 0x5151_0000 + page
        elif cycle > 100_000_000 and len(found) == 600:
            slot = simulation.vms[0].slot
            assert slot
            places = {page: slot.frame_of(gfns[page]) << 12 for page in ALL}
            assert all(simulation.hardware.memory[places[page] >> 3] == 0x5151_0000 + page for page in ALL)
            found[600] = sum(places[page] != found[page] for page in ALL)

    what, streams = crowded([("compute", 120_000_000), *touches(ALL)])
    run(what, streams, check=None, every=4_500_000, look=look)
    assert found[600] > 50
    assert found[600] + sum(words > 1 for _, _, words in moves.made) <= len(moves.made)


def test_pages_under_a_device_stay_and_can_be_moved_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of io's buffer is pinned while t wants its tables, which come from moves afterwards."""
    moves, pinned = Moves(monkeypatch), list[tuple[int, ...]]()

    def look(simulation: Simulation) -> None:
        for pin in simulation.vms[0].io.pins:
            pinned.append(tuple(pin.pfns.tolist()))
            assert (simulation.host.pins[pin.pfns] == 1).all()
            assert (simulation.host.frames["state"][pin.pfns] == State.GUEST).all()
            assert not {*pin.pfns.tolist()} & {old for old, _, _ in moves.made}

    what, streams = crowded([("io", 0, 600, 80_000_000)])
    simulation, outcome = run(what, streams, check=None, every=9_000_000, look=look)
    assert outcome.ending is None
    assert all(each.finished for each in outcome.vms)
    assert len(pinned) > 10
    assert len({*pinned}) == 1
    assert len({*pinned[0]}) == 600
    assert moves.made
    unpin = next(each for each in outcome.messages if each.kind == Kind.UNPIN)
    assert outcome.vms[3].finish > unpin.time + unpin.cycles
    assert not simulation.host.pins.any()


@pytest.mark.parametrize("mode", ["ept", "npt", "shadow", "agile", "paired", "vkernel"])
@pytest.mark.parametrize("size", ["4K", "2M"])
def test_what_is_pinned_is_where_the_buffer_is(mode: str, size: str) -> None:
    seen = list[tuple[list[int], list[int]]]()

    def look(simulation: Simulation) -> None:
        seen.extend((pin.gfns.tolist(), pin.pfns.tolist()) for pin in simulation.vms[0].io.pins)

    table = vm(mode=mode, memory="16MiB", host_page=size, guest_page=size)
    steps = [*touches(range(3, 20)), ("io", 1, 7, 400_000), ("touch", 0, READ)]
    run(scenario(table, memory="64MiB"), [Script(steps)], every=100_000, look=look)
    assert len(seen) > 3
    (gfns, pfns), *rest = seen
    assert all(each == (gfns, pfns) for each in rest)
    assert len({*gfns}) == len({*pfns}) == 7
    if size == "2M":
        assert gfns == list(range(gfns[0], gfns[0] + 7))
        assert pfns == list(range(pfns[0], pfns[0] + 7))
        assert gfns[0] % 512 == 1
