"""Does the message of the figure on where tables lie hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

REMOTE = 135
PLACES = ("near", "both", "far")


@pytest.fixture(scope="module")
def figure(figure_of: Callable[[str], SimpleNamespace]) -> SimpleNamespace:
    return figure_of("table-placement")


@pytest.fixture(scope="module")
def table(figure: SimpleNamespace) -> pd.DataFrame:
    made: pd.DataFrame = figure.data()
    return made.set_index(["guest", "nested"])


@pytest.mark.parametrize("dimension", ["guest", "nested"])
def test_a_dimension_takes_longer_by_the_way_of_each_reference_that_goes_far(
    table: pd.DataFrame, dimension: str
) -> None:
    """The walk is the same, and so is what caches serve, but for where the frames are: to within a hundredth."""
    near, far = ("near", "near"), ("far", "near") if dimension == "guest" else ("near", "far")
    more = table.loc[far, f"{dimension}_walk"] - table.loc[near, f"{dimension}_walk"]
    assert table.loc[near, f"{dimension}_far"] == 0 == table.loc[far, f"{dimension}_near"]
    assert more == pytest.approx(REMOTE * table.loc[far, f"{dimension}_far"], rel=0.05)


def test_pages_that_take_turns_cost_half_of_the_way(table: pd.DataFrame) -> None:
    walks = table["guest_walk"] + table["nested_walk"]
    for same in ("near", "far"):
        low, middle, high = (walks.loc[(same, place)] for place in PLACES)
        assert middle - low == pytest.approx((high - low) / 2, rel=0.15)


def test_far_nested_tables_cost_what_far_guest_tables_do(table: pd.DataFrame) -> None:
    walks = table["guest_walk"] + table["nested_walk"]
    nested = walks.loc[("near", "far")] - walks.loc[("near", "near")]
    guest = walks.loc[("far", "near")] - walks.loc[("near", "near")]
    both = walks.loc[("far", "far")] - walks.loc[("near", "near")]
    assert both == pytest.approx(nested + guest, rel=0.05)


@pytest.mark.parametrize("memory", PLACES)
def test_copies_of_nested_tables_are_near_wherever_memory_lies(table: pd.DataFrame, memory: str) -> None:
    copied, near = table.loc[(memory, "copied")], table.loc[(memory, "near")]
    assert copied["nested_far"] == 0 < copied["nested_near"]
    assert copied["nested_walk"] == pytest.approx(near["nested_walk"], rel=0.01)
    assert copied["guest_walk"] == pytest.approx(near["guest_walk"], rel=0.01)  # whose tables have no copies


def test_a_table_that_lies_near_needs_no_copy(table: pd.DataFrame) -> None:
    """Of tables in turn half have one, and of far ones all."""
    once = table.loc[("near", "near"), "table_frames"]
    near, both, far = (table.loc[(memory, "copied"), "table_frames"] for memory in PLACES)
    assert near == once
    assert both == pytest.approx(1.5 * once, abs=1)
    assert far == 2 * once
