"""Does the message of the figure on where frames lie hold, and does the README say the same?"""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

README = " ".join((Path(__file__).resolve().parents[2] / "README.md").read_text().split())


@pytest.fixture(scope="module")
def figure(figure_of: Callable[[str], SimpleNamespace]) -> SimpleNamespace:
    return figure_of("frame-placement")


@pytest.fixture(scope="module")
def table(figure: SimpleNamespace) -> pd.DataFrame:
    made: pd.DataFrame = figure.data()
    return made.set_index(["paging", "place"])


def test_under_ept_every_other_placement_costs_several_per_cent(table: pd.DataFrame) -> None:
    assert (table.loc["ept"].drop("first touch")["low"] > 3).all()
    assert (table.loc["ept"].loc[["by address", "tables scattered"], "high"] < 12).all()


def test_pages_in_no_order_cost_nested_walks_most(table: pd.DataFrame) -> None:
    """Pages that are used together share no line of nested entries then."""
    ept = table.loc["ept"]
    assert ept.loc["pages scattered", "low"] > 3 * ept.loc["tables scattered", "high"]
    assert (table.loc["native", "mean"].drop("first touch") < 0.5 * ept["mean"].drop("first touch")).all()


def test_natively_it_is_a_few_per_cent(table: pd.DataFrame) -> None:
    assert (table.loc["native"].drop("first touch")["low"] > 1).all()
    assert (table.loc["native"]["high"] < 7).all()


def test_a_shadow_s_walks_do_not_see_where_the_guest_s_tables_lie(table: pd.DataFrame) -> None:
    row = table.loc[("shadow", "tables scattered")]
    assert row["low"] < 0 < row["high"] < 0.5


def test_tlbs_miss_as_often_wherever_frames_lie(figure: SimpleNamespace) -> None:
    """But for where all is mapped before the start: then there is no miss of a first touch that is made again."""
    table = figure.EXPERIMENT.table()
    lazy = table[table["populate"] == "lazy"]
    assert (lazy.groupby(["paging", "replicate"])["walks"].nunique() == 1).all()


def test_the_readme_has_the_measured_intervals(table: pd.DataFrame) -> None:
    ept, native = table.loc["ept"], table.loc["native"]
    said = re.search(
        r"walks are ([\d.]+) % \(([\d.]+) to ([\d.]+)\) longer .*? ([\d.]+) % \(([\d.]+) to ([\d.]+)\) ", README
    )
    assert said
    rows = [ept.loc[place] for place in ("by address", "tables scattered")]
    assert [float(each) for each in said.groups()] == [
        pytest.approx(row[name], abs=0.06) for row in rows for name in ("mean", "low", "high")
    ]
    pages = ept.loc["pages scattered"]
    assert f"{pages['mean']:.0f} % ({pages['low']:.0f} to {pages['high']:.0f}) where its pages are" in README
    places = ("by address", "tables scattered", "pages scattered")
    one, two, three = (f"{native.loc[place, 'mean']:.1f}" for place in places)
    assert f"natively {one}, {two} and {three} %" in README
