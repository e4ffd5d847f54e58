"""Does the message of the figure on huge pages under fragmentation hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("thp-fragmentation").data()
    return made.set_index(["fragmentation", "defrag", "khugepaged"])


def test_the_guest_maps_all_of_it_by_huge_pages_whatever_its_host_does(table: pd.DataFrame) -> None:
    """48 MiB are 24 pages of 2 MiB; of the host's nothing else can be aligned with them."""
    assert len(table) == 32
    assert (table["guest_huge"] == 48 << 8).all()
    assert (table["aligned"] <= table["host_huge"]).all()


def test_faults_alone_lose_alignment_with_fragmentation_down_to_nothing(table: pd.DataFrame) -> None:
    share = table["share"].xs(("never", False), level=("defrag", "khugepaged")).sort_index()
    assert share.is_monotonic_decreasing
    assert share[0.0] == 1
    assert share[1.0] == 0


def test_an_access_pays_for_what_is_not_aligned(table: pd.DataFrame) -> None:
    alone = pd.DataFrame(table.xs(("never", False), level=("defrag", "khugepaged"))).sort_values(by="share")
    assert alone["translation"].is_monotonic_decreasing
    assert alone["translation"].max() > 20
    assert (table["translation"][table["share"] == 1] < 0.1).all()


def test_compaction_at_faults_keeps_nine_tenths(table: pd.DataFrame) -> None:
    assert (table["share"].xs("madvise", level="defrag") > 0.9).all()


def test_khugepaged_makes_up_for_all_that_faults_did_not_get(table: pd.DataFrame) -> None:
    assert (table["share"].xs(True, level="khugepaged") == 1).all()
