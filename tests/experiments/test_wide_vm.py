"""Does the message of the figure on a VM on two sockets hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

MODES = ("native", "ept", "shadow")
FIRST, TURNS, ONE, BALANCED = "first touch", "in turn", "one socket", "one, balanced"


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("wide-vm").data()
    return made.set_index(["mode", "place"])


@pytest.mark.parametrize("mode", MODES)
def test_first_touch_has_pages_near(table: pd.DataFrame, mode: str) -> None:
    assert table.loc[(mode, FIRST), "far"] < (0.001 if mode == "native" else 0.1)


@pytest.mark.parametrize("mode", MODES)
def test_half_is_far_in_turn_and_on_one_socket(table: pd.DataFrame, mode: str) -> None:
    assert table.loc[(mode, TURNS), "far"] == pytest.approx(0.5, abs=0.05)
    assert 0.45 < table.loc[(mode, ONE), "far"] < 0.6  # the thread near to it has ended first, and was measured less


@pytest.mark.parametrize("mode", MODES)
def test_what_is_far_takes_longer_most_where_one_thread_has_it_all(table: pd.DataFrame, mode: str) -> None:
    cycles = table["cycles"].loc[mode]
    assert 1.1 * cycles[FIRST] < cycles[TURNS] < 1.3 * cycles[FIRST]
    assert cycles[ONE] > 1.5 * cycles[FIRST]


@pytest.mark.parametrize("mode", MODES)
def test_balancing_brings_pages_home(table: pd.DataFrame, mode: str) -> None:
    assert table.loc[(mode, BALANCED), "far"] < 0.02
    assert table.loc[(mode, BALANCED), "cycles"] < 1.1 * table.loc[(mode, FIRST), "cycles"]
    assert table.loc[(mode, ONE), "moved"] == 0
