"""Does the first-light figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

TRACES = ["cc1", "python", "sort", "sqlite"]


@pytest.fixture(scope="module")
def figure(figure_of: Callable[[str], SimpleNamespace]) -> SimpleNamespace:
    return figure_of("first-light")


@pytest.fixture(scope="module")
def table(figure: SimpleNamespace) -> pd.DataFrame:
    """Return a row for each cpu, workload and mode, a column for each cause, in cycles per access."""
    wide: pd.DataFrame = figure.data().pivot_table(
        index=["cpu", "workload", "mode"], columns="cause", values="per_access", fill_value=0.0
    )
    return wide


@pytest.fixture(params=["skylake-x ept", "zen4 npt"])
def pair(request: pytest.FixtureRequest, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the costs of every trace natively and nested, on one CPU."""
    cpu, mode = request.param.split()
    return table.loc[(cpu, slice(None), "native")], table.loc[(cpu, slice(None), mode)]


def test_each_program_runs_in_each_mode_on_the_cpus_that_have_it(table: pd.DataFrame) -> None:
    expected = {(cpu, trace, mode) for cpu, nested in (("skylake-x", "ept"), ("zen4", "npt")) for trace in TRACES
                for mode in ("native", nested)}  # fmt: skip
    assert set(table.index) == expected


def test_a_nested_walk_costs_more_than_a_native_one_for_every_program(pair) -> None:
    native, nested = pair
    walks = nested["walk_guest"] + nested["walk_nested"]
    assert (walks > native["walk_guest"]).all()
    assert (native["walk_nested"] == 0).all()
    assert (nested["walk_nested"] > 0).all()


def test_exits_and_waits_for_the_pool_come_only_with_a_monitor(pair) -> None:
    native, nested = pair
    assert (native[["exit", "pool_wait", "host_wait"]] == 0).all(axis=None)
    assert (nested[["exit", "pool_wait"]] > 0).all(axis=None)


def test_for_programs_this_small_memory_management_costs_more_than_translation(pair) -> None:
    translation, management = ["l2_tlb", "walk_guest", "walk_nested"], ["guest_fault", "exit", "pool_wait", "host_wait"]
    for costs in pair:
        assert (costs[management].sum(axis=1) > costs[translation].sum(axis=1)).all()


def test_the_figure_has_a_panel_for_each_cpu_and_a_bar_for_each_mode(
    figure: SimpleNamespace, table: pd.DataFrame
) -> None:
    from vmsim.analysis import style

    long = table.stack().rename("per_access").reset_index()
    with style.figure(height=2.9, columns=2, sharey=True) as (_, axes):
        figure.draw(long, axes)
        assert [ax.get_title() for ax in axes] == list(figure.TITLES.values())
        assert [len(ax.get_xticks()) for ax in axes] == [8, 8]
