"""Is progress shown to people, and to nobody else?"""

import re
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

import vmsim
from tests.simulation.small import scenario, vm
from vmsim.base import progress
from vmsim.base.progress import Tally, in_notebook, in_words, progress_bar, showing, status_line, wants_progress

SMALL = scenario(vm("left"), vm("right"))


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Stand in for a notebook: what its cell showed, one after the other."""
    shown: list[str] = []

    class Handle:
        def update(self, html: str) -> None:
            shown.append(html)

    def display(html: str, display_id: bool) -> Handle:
        assert display_id
        shown.append(html)
        return Handle()

    module: Any = ModuleType("IPython.display")
    module.HTML, module.display = str, display
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(Console, "is_jupyter", True, raising=False)
    monkeypatch.setattr(Console, "__init__", lambda *_, **__: None)
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    return iter([shown])  # type: ignore[return-value]


def test_in_a_pipe_there_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bar("simulating") as show, status_line() as say:
        assert show is None
        say("nothing")
    vmsim.run(SMALL, progress=True)
    vmsim.sweep(SMALL, {"seed": [1, 2]}, jobs=1, progress=True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_all_vms_count_together(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bar("simulating") as show:
        assert show is not None
        show("[/x] a", 0, 10_000)
        show("b", 0, 20_000)
        show("[/x] a", 1_000, 10_000)
        show("b", 500, 20_000)
        show("[/x] a", 4_000, 10_000)
    said = capfd.readouterr()
    assert said.out == ""
    assert "simulating: [/x] a" in said.err
    assert "15%" in said.err  # 4,500 of 30,000
    assert re.search(r"accesses/s\S* \S*1 s left", said.err)
    assert "━" in said.err


@pytest.mark.usefixtures("terminal")
def test_where_nobody_knows_how_much_there_is_it_counts(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bar("recording") as show:
        assert show is not None
        show("", 1_000, 0)
        show("", 65_000, 0)
    said = capfd.readouterr().err
    assert "recording" in said
    assert "65,000 accesses" in said
    assert "%" not in re.sub(r"\x1b\S*", "", said)


def test_the_speed_is_that_since_the_clock_began(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    tally = Tally("sweep", "points")
    tally.show("", 200, 1000)  # were there
    assert (tally.share, tally.rate, tally.left) == ("20%", "", "")
    tally.begin(ago=5)  # when the first point that is done was begun
    tally.show("", 201, 1000)
    assert (tally.rate, tally.left) == ("0.2 points/s", "67 min left")  # 799 points of 5 s
    now = 105.0
    tally.show("", 240, 1000)
    assert (tally.share, tally.rate, tally.left) == ("24%", "4.0 points/s", "3 min left")  # 760 / 4 = 190 s
    tally.show("", 1000, 1000)
    assert (tally.share, tally.left) == ("100%", "")  # no second is left
    tally.show("", 0, 10)  # another sweep
    assert (tally.rate, tally.left) == ("", "")


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (40, "40 s"), (99.4, "99 s"), (720, "12 min"), (12_000, "3 h 20 min")]
)
def test_lengths_of_time_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.usefixtures("terminal")
def test_a_status_within_another_names_both(capfd: pytest.CaptureFixture[str]) -> None:
    with status_line() as outer:
        outer("agile (1 of 5)")
        with status_line() as inner:
            inner("fitting")
    assert "agile (1 of 5): fitting" in capfd.readouterr().err


def test_in_a_notebook_it_is_shown_unless_it_is_turned_off_and_leaves_nothing(cell: Iterator[list[str]]) -> None:
    (shown,) = cell
    vmsim.run(SMALL, progress=False)
    assert shown == []
    vmsim.run(SMALL)
    assert "<progress" in shown[0]
    assert any("left" in each or "right" in each for each in shown)
    assert shown[-1] == ""


def test_by_default_there_is_none_in_a_script() -> None:
    assert not in_notebook()
    assert not wants_progress(None)
    assert wants_progress(True)
    assert not wants_progress(print)


def test_who_asks_is_told_of_every_vm_from_nothing_to_all() -> None:
    told: list[tuple[str, int, int]] = []
    vmsim.run(SMALL, progress=lambda *each: told.append(each))
    assert told[:2] == [("left", 0, 16), ("right", 0, 16)]
    assert {("left", 16, 16), ("right", 16, 16)} <= {*told}
    events: list[dict[str, Any]] = []
    vmsim.sweep(SMALL, {"vm.memory": ["4MiB", "8MiB"]}, jobs=1, progress=events.append)
    assert [event["event"] for event in events].count("done") == 2
    with showing("x", told.append) as show:  # type: ignore[arg-type]
        assert show == told.append
