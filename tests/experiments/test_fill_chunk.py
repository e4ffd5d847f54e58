"""Does the fill-chunk figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

from vmsim.scenario.cpu_files import load_cpu

PAGES = 256  # mapped by each process under shadow paging
ENTRY = sum(getattr(load_cpu("skylake-x").cost, step) for step in ("violation_entry", "violation_rmap"))
FRESH = [("ept", 200_000), ("npt", 200_000)]
LITTLE, SOME, ALL = (("shadow", every) for every in (32, 128, 2048))


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("fill-chunk").data()
    return made


@pytest.fixture(scope="module")
def cost(table: pd.DataFrame) -> pd.DataFrame:
    """Return cycles per page used by chunk, a column for each line."""
    return table.pivot_table(index="chunk", columns=["paging", "every"], values="cycles_per_page")


@pytest.fixture(scope="module")
def exiting(figure_of: Callable[[str], SimpleNamespace]) -> dict[str, pd.Series]:
    """Return cycles of exits alone for each of 8,192 fresh pages, by chunk, under EPT and NPT."""
    points = figure_of("fill-chunk").EXPERIMENT.table()
    return {
        paging: points[points["paging"] == paging].set_index("chunk")["exit_cycles"].sort_index() / 8192
        for paging, _ in FRESH
    }


@pytest.fixture(scope="module")
def exits(table: pd.DataFrame) -> pd.DataFrame:
    return table.pivot_table(index="chunk", columns=["paging", "every"], values="exits_per_page")


def test_one_mapping_per_fault_exits_once_for_each_page_used_and_each_turn(table: pd.DataFrame, exits) -> None:
    share = table.set_index(["paging", "every"])["share"]
    for line in (LITTLE, SOME, ALL):
        assert exits.loc[1, line] == pytest.approx(1 + 1 / (share[line].iloc[0] * PAGES), rel=0.02)
    for line in FRESH:
        assert exits.loc[1, line] == pytest.approx(1, rel=0.01)


def test_where_neighbours_are_used_a_chunk_shares_the_exit_and_the_entry_remains(cost, exits) -> None:
    for line in (ALL, *FRESH):
        for chunk in (2, 4, 8, 16):
            assert exits.loc[chunk, line] == pytest.approx(1 / chunk, rel=0.15)
        assert (cost.loc[:32, line].diff().dropna() < 0).all()
        assert ENTRY < cost.loc[512, line] < cost.loc[1, line] / 2
    assert cost.loc[512, ALL] < 1.1 * ENTRY


def test_most_of_the_gain_comes_with_the_first_sixteen(cost, exiting) -> None:
    for line in (cost[ALL], *(exiting[paging] for paging, _ in FRESH)):
        assert line[1] - line[16] > 0.9 * (line[1] - line.min())


def test_who_touches_new_pages_alone_waits_for_the_pool_until_a_chunk_is_as_large_as_its_minimum(cost, exiting) -> None:
    for paging, every in FRESH:
        waits = cost[(paging, every)] - exiting[paging]
        assert waits.loc[1:32].between(50, 750).all()
        assert waits.loc[64:].between(50, 150).all()


def test_where_little_is_used_single_mappings_cost_least_and_middling_chunks_most(cost) -> None:
    line = cost[LITTLE]
    assert line.idxmin() == 1
    assert 8 <= line.idxmax() <= 64
    used = 1 - (1 - 1 / PAGES) ** 32
    assert line[512] == pytest.approx(ENTRY / used, rel=0.1)  # the price of all entries, borne by a few


def test_where_two_fifths_are_used_the_largest_chunk_is_cheaper_than_none_and_a_small_one_is_not(cost) -> None:
    line = cost[SOME]
    assert line[512] < 0.8 * line[1]
    assert line[2] > line[1]


def test_from_the_whole_table_on_a_chunk_is_no_larger(cost) -> None:
    """256 mappings lie in half a table."""
    for line in (LITTLE, SOME, ALL):
        assert cost.loc[512, line] == cost.loc[256, line]


def test_npt_differs_from_ept_by_its_exit(exiting) -> None:
    exit_cycles = {cpu: load_cpu(cpu).cost.vm_exit for cpu in ("skylake-x", "zen4")}
    difference = exiting["npt"][1] - exiting["ept"][1]
    assert difference == pytest.approx(exit_cycles["zen4"] - exit_cycles["skylake-x"], rel=0.01)
