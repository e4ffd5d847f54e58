"""Does the tags figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

PAGES = 256  # of each process


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("tags").data()
    return made.set_index(["panel", "cpu", "tagged", "rate"]).sort_index()


@pytest.fixture(params=["skylake-x", "zen4"])
def cpu(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_tagged_nothing_is_walked_for_twice(table: pd.DataFrame, cpu: str) -> None:
    for panel in ("processes", "VMs"):
        assert (table.loc[(panel, cpu, True), "misses"] == 0).all()


def test_untagged_a_switch_of_processes_has_each_page_walked_for_once_more(table: pd.DataFrame, cpu: str) -> None:
    for rate, misses in table.loc[("processes", cpu, False), "misses"].items():
        used = PAGES * (1 - (1 - 1 / PAGES) ** (1e6 / rate))
        assert misses * 1e6 / rate == pytest.approx(used, rel=0.02)


def test_without_tags_translation_grows_with_the_rate_and_with_them_hardly(table: pd.DataFrame, cpu: str) -> None:
    for panel in ("processes", "VMs"):
        untagged, tagged = (table.loc[(panel, cpu, which), "translation"] for which in (False, True))
        assert untagged.is_monotonic_increasing
        assert (untagged > tagged).all()
        assert untagged.iloc[-1] > 1.4 * untagged.iloc[0]
        assert tagged.max() < 1.16 * tagged.min()


def test_long_turns_and_slices_of_a_millisecond_hide_it(table: pd.DataFrame, cpu: str) -> None:
    for panel, slow in (("processes", 50), ("VMs", 1)):
        untagged, tagged = (table.loc[(panel, cpu, which), "translation"] for which in (False, True))
        assert (untagged / tagged)[untagged.index <= slow].max() < 1.1


def test_the_amd_model_loses_most(table: pd.DataFrame) -> None:
    for panel in ("processes", "VMs"):
        added = table.loc[(panel, slice(None), False), "translation"].droplevel("tagged") - table.loc[
            (panel, slice(None), True), "translation"
        ].droplevel("tagged")
        assert (added[panel, "zen4"] > 3 * added[panel, "skylake-x"]).all()
