"""Does the message of the figure on tables that move after pages hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

REMOTE = 135
NEAR = "near from the start"


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("table-migration").data()
    return made.set_index("nested_tables")


def test_pages_bring_the_guests_own_tables_with_them(table: pd.DataFrame) -> None:
    assert (table["guest_far"] < 0.001).all()
    assert table["guest_walk"].to_numpy() == pytest.approx(table.loc[NEAR, "guest_walk"], rel=0.02)


def test_nested_tables_that_stay_behind_cost_the_way_of_each_reference(table: pd.DataFrame) -> None:
    behind = table.loc["stay behind"]
    more = behind["nested_walk"] - table.loc[NEAR, "nested_walk"]
    assert more == pytest.approx(REMOTE * behind["nested_far"], rel=0.05)
    walks = table["guest_walk"] + table["nested_walk"]
    assert walks["stay behind"] / walks[NEAR] == pytest.approx(1.23, abs=0.01)


@pytest.mark.parametrize("fate", ["move after pages", "copied"])
def test_tables_that_move_or_are_copied_cost_what_near_ones_do(table: pd.DataFrame, fate: str) -> None:
    assert table.loc[fate, "nested_far"] < 0.001
    assert table.loc[fate, "nested_walk"] == pytest.approx(table.loc[NEAR, "nested_walk"], rel=0.02)


def test_tables_that_move_need_no_more_frames_and_copies_twice_as_many(table: pd.DataFrame) -> None:
    frames = table["tables_near"] + table["tables_far"]
    assert frames["move after pages"] == frames["stay behind"] == frames[NEAR]
    assert frames["copied"] == 2 * frames[NEAR]
    assert table.loc["move after pages", "tables_near"] > table.loc["move after pages", "tables_far"]
