"""May the host do the same to pages of programs that run on it themselves, those of a paired kernel among them?

Their tables stay where they are: the host's kernel edits them by their frames. A page that is taken comes back by a
page fault of the program's kernel, to another frame; so it is compared which pages there are in the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.contract.hosts import VERBS, Host, small, undisturbed
from tests.simulation.small import WRITE, Script, run, scenario, touches, vm
from vmsim.contracts import NO_FLUSH, Flush
from vmsim.frames.records import State
from vmsim.host.native_memory import NativeMemory
from vmsim.scenario import Scenario

LAYOUTS = ("contiguous", "pointer", "separate", "shared")
PROGRAMS: dict[str, dict[str, Any]] = {
    "native": {},
    **{f"paired-{layout}": {"paired": {"layout": layout, "guest": False}} for layout in LAYOUTS},
    **{f"becoming-{layout}": {"paired": {"layout": layout, "guest_at": "40%"}} for layout in LAYOUTS},
}


def host_of(program: str) -> Scenario:
    """Return a host of two programs: one touches pages at random, the other maps and unmaps."""
    keys = PROGRAMS[program]
    return small("paired" if keys else "native", populate="lazy", **keys)


@pytest.mark.parametrize("verb", ["age", "take", "move", "share"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_cannot_tell(program: str, verb: str) -> None:
    calm, host = undisturbed(host_of(program)), Host(host_of(program), verb, "data", 40_009)
    assert host.done > 5
    for name, before in calm.seen.items():
        after = host.seen[name]
        assert {*after} == {*before} or (verb == "take" and {*after} < {*before})  # what is not touched again is away
    for before, after in zip(calm.faults, host.faults, strict=True):
        assert before <= after <= before + (host.done if verb in ("take", "share") else 0)


@pytest.mark.parametrize("program", ["native", "paired-pointer"])
def test_tables_are_neither_taken_nor_moved(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def look(pages: NativeMemory, number: int) -> Flush:
        nonlocal looked
        frames = pages.records
        tables = np.flatnonzero((frames["owner"] == pages.owner) & (frames["state"] == State.TABLE))
        assert len(tables) > 2
        assert (pages.find(tables) == -1).all()
        assert pages.take_each(tables) == NO_FLUSH
        looked += 1
        return NO_FLUSH

    monkeypatch.setitem(VERBS, "look", look)
    Host(host_of(program), "look", "data", 40_009)
    assert looked > 5


@pytest.mark.parametrize("program", ["native", "paired-contiguous"])
def test_a_page_that_moves_takes_its_entry_its_frame_and_its_slot_along(program: str) -> None:
    """As remove_migration_pte does; a program waits for nothing, and loses no frame of its limit."""
    what = host_of(program).replace(**{"host.swap": {"device": "zram"}})
    host = Host(what, "move", "data", 9_001)
    calm = undisturbed(host_of(program))
    assert host.done > 20
    assert host.faults == calm.faults


@pytest.mark.parametrize("program", ["native", "paired-contiguous"])
def test_a_page_that_moves_takes_its_words_along(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into a frame that held others: nobody may rely on what a free one does."""
    found = []

    def move_words(pages: NativeMemory, number: int) -> Flush:
        (new,) = pages.host.take(pages.owner, 1, State.GUEST).tolist()
        words = pages.words.reshape(-1, 512)
        words[number, 1], words[new, :2] = 7, 9
        flush = pages.move(number, new)
        found.append((words[new, :3].tolist(), bool(words[number].any())))
        words[new] = 0
        pages.host.give(np.array([number]))
        return flush

    monkeypatch.setitem(VERBS, "words", move_words)
    Host(host_of(program), "words", "data", 40_009)
    assert found[5:]
    assert all(each == ([0, 7, 0], False) for each in found)


def test_paired_kernels_make_blocks_of_programs_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halves of tables lie side by side: who needs two frames has pages of a program on the host moved as well."""
    moved = []
    move = NativeMemory.move

    def count(pages: NativeMemory, number: int, pfn: int) -> Flush:
        moved.append(pages.owner)
        return move(pages, number, pfn)

    monkeypatch.setattr(NativeMemory, "move", count)
    holes: list[Any] = [*touches(range(1960), WRITE), *(("unmap", page, 1) for page in range(1, 1960, 2))]
    holes += [("compute", 300_000_000), ("touch", 0, WRITE)]
    apart = [("touch", 512 * number, WRITE) for number in range(60)]
    tables = [
        vm("a", mode="native", memory="8MiB"),
        vm("b", mode="paired", memory="4MiB", paired={"guest": False}, start="20ms"),
    ]
    what = scenario(*tables, memory="8MiB", what_if=True, watermarks={"min": "64KiB", "low": "72KiB", "high": "80KiB"})
    _, outcome = run(what, [Script(holes), Script(apart)], every=5_000_021)
    assert outcome.ending is None
    assert set(moved) == {0}
