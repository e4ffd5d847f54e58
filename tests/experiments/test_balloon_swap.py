"""Does the message of the figure on balloons and swap hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

PAGES = 256  # of a MiB
HOST, GUESTS = 23, 2 * 16  # MiB


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("balloon-swap").data()
    return made.set_index("mib")


def test_without_a_balloon_what_the_host_takes_is_used_again(table: pd.DataFrame) -> None:
    assert table.loc[0, "out"] > (GUESTS - HOST) * PAGES * 0.8
    assert table.loc[0, "back"] > 0.75 * table.loc[0, "out"]


def test_balloons_of_what_the_host_lacks_leave_nothing_to_swap(table: pd.DataFrame) -> None:
    """6 MiB of each VM: the 9 MiB that the host lacks, and its tables and watermarks; at 5 hardly a page comes back."""
    assert (table.loc[6, ["out", "back", "swap_wait"]] == 0).all()
    assert table.loc[5, "back"] < 0.05 * table.loc[0, "back"]
    assert (table["guest_out"] == 0).all()  # the guests have pages of files to give


def test_each_page_in_a_balloon_is_one_of_a_file_that_the_guest_drops(table: pd.DataFrame) -> None:
    more = table["evicted"] - table.loc[0, "evicted"]
    asked = 2 * table.index.to_numpy() * PAGES
    assert ((more - asked).abs() < 0.1 * asked + 64).all()


def test_an_access_takes_less_than_a_third_of_the_time(table: pd.DataFrame) -> None:
    """The more balloon the less comes back, but for a small one, for which more comes back."""
    assert table.loc[6, "cycles_per_access"] < table.loc[0, "cycles_per_access"] / 3
    assert table.loc[2:, "back"].is_monotonic_decreasing
    assert table.loc[1, "back"] > table.loc[0, "back"]
