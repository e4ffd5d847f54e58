"""Does the horizon figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def figure(figure_of: Callable[[str], SimpleNamespace]) -> SimpleNamespace:
    return figure_of("horizon")


@pytest.fixture(scope="module")
def table(figure: SimpleNamespace) -> pd.DataFrame:
    made: pd.DataFrame = figure.data()
    return made


def worst(table: pd.DataFrame, panel: str, most: float = 1000) -> float:
    """Return the largest error of any seed in per cent, up to a horizon."""
    here = table[(table["panel"] == panel) & (table["horizon"] <= most)]
    return float(100 * here["error"].abs().max())


def test_a_shared_cache_does_not_notice_the_horizon(table: pd.DataFrame) -> None:
    assert 0 < worst(table, "caches") < 0.1


def test_no_wait_for_a_pool_moves_by_a_cycle(figure: SimpleNamespace, table: pd.DataFrame) -> None:
    points = figure.EXPERIMENT.table()
    assert (points.loc[points["pool_max"] == 16, "pool_wait_cycles"] > 0).all()
    assert worst(table, "pool") == 0


@pytest.mark.parametrize("panel", ["caches", "pool", "reclaim", "shootdowns"])
def test_half_the_default_moves_no_time_by_1_percent(figure: SimpleNamespace, table: pd.DataFrame, panel: str) -> None:
    errors = table[table["panel"] == panel].pivot(index=["paging", "replicate"], columns="horizon", values="error")
    assert (errors[figure.DEFAULT] - errors[figure.DEFAULT / 2]).abs().max() < 0.001


@pytest.mark.parametrize(("panel", "most"), [("reclaim", 0.2), ("shootdowns", 0.1)])
def test_up_to_the_default_errors_are_small(
    figure: SimpleNamespace, table: pd.DataFrame, panel: str, most: float
) -> None:
    assert most / 2 < worst(table, panel, figure.DEFAULT) < most + 0.05


def test_pages_taken_are_noticed_late_where_the_horizon_is_long(table: pd.DataFrame) -> None:
    here = table[(table["panel"] == "reclaim") & (table["paging"] == "ept")]
    late = here.groupby("horizon")["error"].mean()
    assert late[1000] < late[200] < late[50] < late[20] < 0


def test_each_shootdown_ends_a_run(table: pd.DataFrame) -> None:
    here = table[(table["panel"] == "shootdowns") & (table["horizon"] >= 50)]
    assert (here.groupby(["paging", "replicate"])["error"].nunique() == 1).all()
