"""Does the figure on hints of free pages tell the truth: whole blocks are spared, and few pages spoil many of them?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

BLOCK = 4  # MiB
MEMORY = 128


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("free-page-hints").data()
    return made.set_index(["fragmentation", "used_mib"])


def test_whole_blocks_are_spared_that_are_free(table: pd.DataFrame) -> None:
    """None is written to before the second reading, for the program has its memory from the start."""
    assert (table["spared_mib"] == BLOCK * table["blocks"]).all()
    assert (table["spared_mib"] < table["free_mib"]).all()


def test_a_guest_that_has_just_started_spares_all_but_a_block(table: pd.DataFrame) -> None:
    fresh = table.loc[0]
    assert (fresh["spared_mib"] == fresh["free_mib"] - BLOCK).all()


def test_the_more_is_scattered_the_less_is_spared(table: pd.DataFrame) -> None:
    for _, rows in table["spared_mib"].groupby("used_mib"):
        assert rows.sort_index().is_monotonic_decreasing


def test_three_tenths_scattered_leave_a_fifth_and_six_tenths_one_block(table: pd.DataFrame) -> None:
    assert (table.loc[0.3, "spared_mib"] == 24).all()
    assert (table.loc[0.6, "spared_mib"] == BLOCK).all()
    assert (table.loc[0.9, "spared_mib"] == 0).all()
