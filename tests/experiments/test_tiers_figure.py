"""Does the message of the figure on tiers hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

DRAM = 8  # MiB
STAY, PROMOTE, DEMOTE, FREE = "stay", "promote", "promote, demote", "and keep 5% free"


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("tiers").data()
    return made.set_index(["mib", "policy"])


@pytest.mark.parametrize("footprint", [16, 24])
def test_what_does_not_fit_is_slow_where_nothing_moves(table: pd.DataFrame, footprint: int) -> None:
    """All parts of the footprint are used alike, and those of it that came first lie in DRAM, beside some tables."""
    assert table.loc[(footprint, STAY), "slow"] == pytest.approx(1 - DRAM / footprint, abs=0.05)
    assert table.loc[(footprint, PROMOTE), "slow"] == pytest.approx(table.loc[(footprint, STAY), "slow"], abs=0.02)


@pytest.mark.parametrize("footprint", [16, 24])
def test_promotion_pays_only_where_something_makes_room(table: pd.DataFrame, footprint: int) -> None:
    cycles, slow = table["cycles_per_access"].loc[footprint], table["slow"].loc[footprint]
    assert cycles[PROMOTE] > cycles[STAY] > cycles[DEMOTE] > cycles[FREE]
    assert slow[FREE] < slow[DEMOTE] < slow[STAY] / 2
    assert table.loc[(footprint, PROMOTE), "promoted"] == 0


def test_moving_costs_something_where_all_fits(table: pd.DataFrame) -> None:
    cycles = table["cycles_per_access"].loc[8]
    assert cycles[STAY] < cycles[DEMOTE] < cycles[FREE] < 1.1 * cycles[STAY]
