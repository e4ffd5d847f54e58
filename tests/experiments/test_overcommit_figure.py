"""Does the message of the figure on policies of overcommitment hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("overcommit").data()
    return made.pivot(index="vms", columns="policy")


def test_two_vms_fit_and_nothing_is_swapped(table: pd.DataFrame) -> None:
    """2 x 16 of 40 MiB."""
    assert (table.loc[:2, "swapped"] == 0).all(axis=None)
    assert (table.loc[:2, "slowdown"] < 1.02).all(axis=None)


def test_without_a_policy_the_third_takes_three_times_as_long(table: pd.DataFrame) -> None:
    assert (table.loc[3:, ("slowdown", "none")] > 3).all()
    assert table.loc[3, ("back", "none")] > 0.75 * table.loc[3, ("swapped", "none")]


def test_equal_parts_hold_five_vms_promised_twice_the_host(table: pd.DataFrame) -> None:
    assert (table.loc[:5, ("slowdown", "prorata")] < 1.05).all()
    assert table.loc[6, ("slowdown", "prorata")] > 3


def test_policies_that_wait_until_the_host_is_short_swap_but_less(table: pd.DataFrame) -> None:
    for policy in ("mom", "esx"):
        assert (table.loc[3:, ("back", policy)] > 0).all()
        assert (table.loc[3:, ("back", policy)] < 0.55 * table.loc[3:, ("back", "none")]).all()
        assert table.loc[3:5, ("slowdown", policy)].between(1.4, 3).all()
    assert table.loc[6, ("slowdown", "mom")] < 3
    assert 0.85 < table.loc[6, ("slowdown", "esx")] / table.loc[6, ("slowdown", "none")] < 1
