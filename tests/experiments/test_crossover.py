"""Does the crossover figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def figure(figure_of: Callable[[str], SimpleNamespace]) -> SimpleNamespace:
    return figure_of("crossover")


@pytest.fixture(scope="module")
def table(figure: SimpleNamespace) -> pd.DataFrame:
    made: pd.DataFrame = figure.data()
    return made


@pytest.fixture(scope="module")
def grid(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["work"] > 0) & ~table["data_caches"]].set_index(["work", "footprint"]).sort_index()


@pytest.fixture(scope="module")
def programs(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["work"] == 0].set_index("vm")


def test_the_axes_are_what_was_asked_for(grid: pd.DataFrame) -> None:
    """A page mapped between so many accesses, and its own first."""
    for work, row in grid.groupby("work"):
        assert row["edits"].nunique() == 1
        assert row["edits"].iloc[0] == pytest.approx(1e6 / (work + 1), rel=0.15)
        assert row["misses"].is_monotonic_increasing


def test_a_page_mapped_is_missed_twice_at_least(grid: pd.DataFrame, programs: pd.DataFrame) -> None:
    """But where a program writes to a page that it has read as zeros: it is mapped twice, and the TLB has it still."""
    assert (grid["misses"] >= 1.99 * grid["edits"]).all()
    assert (programs["misses"] >= 1.6 * programs["edits"]).all()


def test_more_edits_speak_for_ept_and_more_misses_for_shadow_paging(grid: pd.DataFrame) -> None:
    more = grid["more"].unstack("footprint").sort_index(ascending=False)  # by accesses between edits: more edits below
    assert (more.diff().dropna() > 0).all(axis=None)
    assert (more.diff(axis=1).iloc[:, 1:] < 0).all(axis=None)


def test_each_wins_somewhere_and_most_where_it_should(grid: pd.DataFrame) -> None:
    ratio = grid["ratio"].unstack("footprint")
    assert ratio.iloc[0, 0] == ratio.max(axis=None) > 2
    assert ratio.iloc[-1, -1] == pytest.approx(ratio.min(axis=None), rel=0.02)
    assert ratio.iloc[-1, -1] < 0.7
    assert (ratio.iloc[0] > 1).all()  # more than three thousand pages mapped in a million accesses: always EPT


def test_five_hundred_to_two_thousand_misses_pay_for_an_edit_the_fewer_the_more_there_are(
    figure: SimpleNamespace, table: pd.DataFrame
) -> None:
    line = figure.break_even(table)
    assert len(line) == 5
    assert line.is_monotonic_increasing
    pay = line / line.index
    assert pay.is_monotonic_decreasing
    assert 500 < pay.min() < pay.max() < 2100


def test_with_data_in_the_caches_shadow_paging_wins_less_and_by_fewer_misses(
    figure: SimpleNamespace, table: pd.DataFrame, grid: pd.DataFrame
) -> None:
    """A third of the time is won where data take a fixed time, a twentieth where they wait for memory, too."""
    cached = table[(table["work"] > 0) & table["data_caches"]].set_index(["work", "footprint"]).sort_index()
    assert grid["ratio"].min() == pytest.approx(0.66, abs=0.01)
    assert cached["ratio"].min() == pytest.approx(0.955, abs=0.01)
    assert (cached["more"] < 0).sum() >= (grid["more"] < 0).sum()
    part = figure.break_even(table, data_caches=True) / figure.break_even(table)
    assert len(part) == 5
    assert 0.2 < part.min() < 0.3
    assert 0.9 < part.max() < 1


def test_what_is_guessed_moves_the_line_by_up_to_twice(figure: SimpleNamespace, table: pd.DataFrame) -> None:
    line = figure.break_even(table)
    cheap, dear = (figure.break_even(figure.guessed(table, times)) / line for times in (0.5, 2))
    assert cheap.between(0.48, 0.69).all()
    assert dear.dropna().between(1.4, 2.1).all()
    assert dear.isna().sum() == 1  # where a page in a thousand is mapped, no number of misses pays


def test_real_programs_lie_near_the_edge_and_ept_wins(programs: pd.DataFrame) -> None:
    assert {*programs.index} == {"cc1", "python", "sort", "sqlite"}
    assert (programs["misses"] / programs["edits"] < 10).all()
    assert programs["ratio"].between(1.15, 1.35).all()
    assert (programs["more"] > 0).all()


def test_the_map_tells_within_a_factor_of_two_what_programs_pay(grid: pd.DataFrame, programs: pd.DataFrame) -> None:
    """Shadow paging's own cost of a page, which is all there is at so few misses."""
    cost = grid["more"].unstack("footprint").iloc[:, 0] / grid["edits"].unstack("footprint").iloc[:, 0]
    assert cost.max() < 1.1 * cost.min()
    paid = programs["more"] / programs["edits"]
    assert (paid / cost.mean()).between(0.5, 2).all()
