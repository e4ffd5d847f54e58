"""Does the message of the figure on huge pages of guest and host hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

PROGRAM = 32 << 8  # pages
TWO_TABLES = ["ept", "npt", "agile"]


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("thp-alignment").data()
    return made.set_index(["guest", "host", "paging"]).sort_index()


def of(table: pd.DataFrame, *, guest: bool, host: bool) -> pd.DataFrame:
    return pd.DataFrame(table.loc[(guest, host)])


def test_each_khugepaged_puts_together_all_of_its_side(table: pd.DataFrame) -> None:
    assert len(table) == 16
    assert (of(table, guest=True, host=False)["guest_only"] == PROGRAM).all()
    assert (of(table, guest=True, host=True)["aligned"] == PROGRAM).all()
    assert (of(table, guest=False, host=True)["host_only"] >= PROGRAM).all()
    assert (of(table, guest=False, host=False)["small"] == table["small"].max()).all()


def test_either_alone_spares_no_miss_and_both_spare_all(table: pd.DataFrame) -> None:
    """Within a hundredth: under a shadow pages that the host has moved are missed once more."""
    neither = of(table, guest=False, host=False)["misses"]
    assert (neither > 0.8).all()
    for guest in (True, False):
        assert of(table, guest=guest, host=not guest)["misses"].to_numpy() == pytest.approx(
            neither.to_numpy(), rel=0.01
        )
    assert (of(table, guest=True, host=True)["misses"] == 0).all()
    assert (of(table, guest=True, host=True)["references"] == 0).all()


def test_either_alone_shortens_walks_of_two_tables_alike_and_halves_their_time(table: pd.DataFrame) -> None:
    neither = of(table, guest=False, host=False).loc[TWO_TABLES]
    for guest in (True, False):
        one = of(table, guest=guest, host=not guest).loc[TWO_TABLES]
        assert (one["references"] / neither["references"]).between(0.8, 0.9).all()
        assert (one["cycles"] / neither["cycles"]).between(0.45, 0.55).all()


def test_a_shadow_gains_nothing_from_either_alone(table: pd.DataFrame) -> None:
    neither = of(table, guest=False, host=False).loc["shadow"]
    for guest in (True, False):
        one = of(table, guest=guest, host=not guest).loc["shadow"]
        assert one["cycles"] == pytest.approx(neither["cycles"], rel=0.02)
