"""Does the message of the figure on the idle memory tax hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("idle-tax").data()
    return made.set_index(["vm", "tax"])


def test_the_idle_vm_gives_more_the_higher_the_tax_and_does_not_notice(table: pd.DataFrame) -> None:
    idle = table.loc["idle"]
    assert idle["resident"].is_monotonic_decreasing
    assert idle["resident"].loc[60.0] < 0.74 * idle["resident"].loc[0.0]
    assert idle["cycles_per_access"].max() < 1.03 * idle["cycles_per_access"].min()


def test_without_a_tax_each_has_half(table: pd.DataFrame) -> None:
    """92 % of 40 MiB, less what tables and pools have, halved: 18.4 MiB at most."""
    assert 17 < table["resident"].loc["idle", 0.0] < 18.4


def test_the_busy_vm_is_faster_the_higher_the_tax_and_at_once_where_all_fits(table: pd.DataFrame) -> None:
    busy = table.loc["busy"]
    assert busy["cycles_per_access"].is_monotonic_decreasing
    assert busy["cycles_per_access"].loc[0.0] > 6 * busy["cycles_per_access"].loc[60.0]
    assert (busy["swapped"].loc[60.0:] == 0).all()
    assert busy["resident"].loc[60.0] == pytest.approx(22, abs=0.2)


def test_a_vm_that_swaps_looks_idle(table: pd.DataFrame) -> None:
    active = table["active"].loc["busy"]
    assert active.loc[:50.0].max() < 0.35 * active.loc[60.0:].min()
    assert active.loc[60.0] / active.loc[0.0] == pytest.approx(5, abs=0.2)
