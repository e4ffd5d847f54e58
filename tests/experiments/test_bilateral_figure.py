"""Does the message of the figure on bilateral allocation hold: as much comes back as by reports, for fewer exits?"""

import runpy
from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

ROUNDS, BURST = 8, 8192  # pages
SHORT, LONG = 1, 50  # ms


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("bilateral").data()
    return made.set_index(["way", "every_ms"])


def test_the_program_is_what_the_claims_say_it_is() -> None:
    bursts = runpy.run_path("experiments/bilateral/bursts.py")
    assert (bursts["ROUNDS"], bursts["BURST"], bursts["PAUSE"]) == (ROUNDS, BURST, 60_000_000)


def test_both_take_the_same_memory_most_of_what_each_pause_leaves(table: pd.DataFrame) -> None:
    reported, shared = table.loc["reporting", "freed"], table.loc["shared", "freed"]
    assert (reported == shared).all()
    assert (shared <= ROUNDS * BURST).all()
    assert (shared >= (ROUNDS - 1) * BURST).all()


@pytest.mark.parametrize("way", ["reporting", "shared"])
def test_the_later_the_more_is_left_behind_free_pages(table: pd.DataFrame, way: str) -> None:
    left = table.loc[way, "gap_mib"]
    assert left.is_monotonic_increasing
    assert left[SHORT] < 8 < 16 < left[LONG] < 20
    assert left[LONG] < table.loc[("none", 0), "gap_mib"] / 2


def test_a_reported_page_costs_a_violation_and_a_huge_frame_that_was_taken_one_request(table: pd.DataFrame) -> None:
    """Each page that came back and was used again: all but what the last pause took."""
    nothing = table.loc[("none", 0), "violations"]
    again = (ROUNDS - 2) * BURST
    assert (table.loc["reporting", "violations"] - nothing > 0.9 * again).all()
    shared = table.loc["shared"]
    assert (shared["violations"] < nothing).all()
    assert shared["installs"].between(again / 512, 1.2 * ROUNDS * BURST / 512).all()


def test_what_is_asked_for_by_huge_frames_costs_two_thirds_of_what_violations_do(table: pd.DataFrame) -> None:
    nothing = table.loc[("none", 0), "exit_ms"]
    reported, shared = (table.loc[way, "exit_ms"] - nothing for way in ("reporting", "shared"))
    assert (shared / reported).between(0.6, 0.7).all()


def test_the_hosts_thread_works_as_long_for_either(table: pd.DataFrame) -> None:
    assert table["host_ms"].loc[["reporting", "shared"]].between(80, 85).all()
