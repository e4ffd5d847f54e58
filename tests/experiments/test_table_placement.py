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
