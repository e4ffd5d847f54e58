"""Does the message of the figure on paired tables hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

from tests.oracle.paired import table_pages
from vmsim.scenario.cpu_files import load_cpu

COUNTS = ["order_1_failures", "compactions", "pages_moved"]


@pytest.fixture(scope="module")
def figure(figure_of: Callable[[str], SimpleNamespace]) -> SimpleNamespace:
    return figure_of("paired")


@pytest.fixture(scope="module")
def tables(figure: SimpleNamespace) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    made: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame] = figure.data()
    assert [len(each) for each in made] == [3 * 3 * 5 * 4, 3 * 9, 4 * 5 * 4]
    return made


@pytest.fixture
def table(tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]) -> pd.DataFrame:
    """Give the rows by layout, fragmentation, share of VMs and density."""
    made: pd.DataFrame = tables[0].set_index(["layout", "fragmentation", "share", "density"]).sort_index()
    return made


def test_contiguous_wins_where_enough_processes_are_vms_and_separate_below(figure, tables, table) -> None:
    """The denser the tables of processes the sooner: in the limit, a store against a walk spared."""
    line = figure.line(tables[0], 0.0)
    assert [*line] == sorted(line, reverse=True)
    assert 0.7 < line[1] < 0.8
    cpu = load_cpu("skylake-x")
    limit = cpu.cost.entry_edit / (4 * cpu.cache.l2.cycles + cpu.cost.entry_edit)
    assert limit < line[512] < limit + 0.03
    cycles = table["cycles"].unstack("layout").loc[0.0]
    for (share, density), row in cycles.iterrows():
        assert row.idxmin() == ("contiguous" if share > line[density] else "separate")


def test_fragmentation_takes_the_sparse_from_contiguous_first_but_never_a_host_of_vms_alone(figure, tables) -> None:
    whole, most, all_ = (figure.line(tables[0], share) for share in (0.0, 0.95, 1.0))
    assert (whole <= most).all()
    assert (most <= all_).all()
    assert most[1] > whole[1] + 0.03
    assert most[64] == whole[64]
    assert (all_ > whole + 0.08).all()
    assert all_.max() < 0.97


def test_pointers_never_cost_the_fewest_cycles(table) -> None:
    cycles = table["cycles"].unstack("layout")
    assert (cycles["pointer"] > cycles[["contiguous", "separate"]].min(axis=1)).all()


def test_the_memory_tax_is_one_page_for_each_table(table) -> None:
    """4 processes of 512 pages that are no VMs: their page tables, and three tables above."""
    for (layout, _, share, density), row in table.iterrows():
        if share == 0:
            assert row["table_frames"] == table_pages(layout, 4 * (512 // density + 3), guest=False)
    frames = table["table_frames"].unstack("layout")
    assert (frames["pointer"] == frames["contiguous"]).all()  # to which the pointers are added
    assert (frames.xs(1.0, level="share").nunique(axis=1) == 1).all()  # a VM's separate trees take two pages too


def test_tables_of_vms_are_dense_whatever_their_programs_do(table) -> None:
    """Two for the guest's pages and tables, and three above, both halves; sparse programs have but a third of each."""
    vms = table["table_frames"].xs(1.0, level="share")
    assert vms.max() <= 4 * 2 * (3 + 3)


@pytest.mark.parametrize("layout", ["pointer", "separate"])
def test_other_layouts_do_not_care_about_fragmentation(tables, table, layout: str) -> None:
    assert not table.loc[layout, [*COUNTS, "compaction_cycles"]].to_numpy().any()
    assert (table.loc[layout, "cycles"].unstack("fragmentation").nunique(axis=1) == 1).all()


def test_order_1_fails_when_pairs_run_out_and_each_failure_costs_a_move(tables, table) -> None:
    contiguous = table.loc["contiguous"]
    assert not contiguous.loc[0.0, COUNTS].to_numpy().any()
    single = contiguous.loc[1.0]
    had = single["table_frames"] // 2 - single["order_1_failures"]
    assert had.between(0, 3).all()  # a VM that ends gives some back side by side
    assert not had.loc[0.0].any()
    assert (contiguous["compactions"] == contiguous["order_1_failures"]).all()
    assert (contiguous["pages_moved"] == contiguous["compactions"]).all()
    cost = load_cpu("skylake-x").cost
    for move in (contiguous["compaction_cycles"] / contiguous["compactions"]).dropna():
        assert cost.copy_page + 2 * cost.entry_edit <= move <= cost.copy_page + 3 * cost.entry_edit


def test_what_fragmentation_costs_is_what_compaction_took(table) -> None:
    """Nothing else in the cycles of faults and exits differs."""
    contiguous = table.loc["contiguous"]
    more = (contiguous["cycles"] - contiguous.loc[0.0, "cycles"]) * contiguous["pages"]
    pd.testing.assert_series_equal(more, contiguous["compaction_cycles"].astype(float), check_names=False, atol=1e-3)


def test_failures_rise_once_the_whole_part_of_memory_is_used_up(tables) -> None:
    """64 MiB, of which 1 / (1 + f) are free, and (1 - f) of that whole; tables of two pages need what they are."""
    sparse = tables[1].set_index(["layout", "fragmentation"]).loc["contiguous"]
    for fragmentation, row in sparse.iterrows():
        pairs = (1 - fragmentation) / (1 + fragmentation) * (1 << 14) / 2
        assert row["order_1_failures"] == pytest.approx(max(0, row["table_frames"] / 2 - pairs), abs=20)
    assert (sparse["cycles"].diff().dropna() >= 0).all()


def test_one_table_for_both_is_never_beaten_and_takes_half_the_memory(tables) -> None:
    """An update of a VM spares the store of the second entry and what leads to it; a process that is no VM, nothing."""
    one = tables[2].set_index(["layout", "share", "density"]).sort_index()
    cycles, frames = (one[column].unstack("layout") for column in ("cycles", "table_frames"))
    assert (cycles.idxmin(axis=1).isin(["shared", "separate"])).all()
    assert (cycles["shared"] == cycles.min(axis=1)).all()
    assert (cycles.loc[0.0, "shared"] == cycles.loc[0.0, "separate"]).all()
    assert (2 * frames["shared"] == frames["contiguous"]).all()
    assert (frames.loc[0.0, "shared"] == frames.loc[0.0, "separate"]).all()
    cpu = load_cpu("zen4")
    spared = cycles.loc[1.0, "contiguous"] - cycles.loc[1.0, "shared"]
    assert (spared >= cpu.cost.entry_edit).all()  # of each page
    assert spared[512] < cpu.cost.entry_edit * 1.1 + cpu.cost.zero_page * 4 * 5 / 2048  # and of each table, 4 x 5
    walked = cycles.loc[1.0, "separate"] - cycles.loc[1.0, "contiguous"]
    assert (walked > 0).all()  # separate trees are walked twice


def test_the_figure_draws_what_was_measured(figure, tables) -> None:
    from vmsim.analysis import style

    with style.figure(width=style.WIDE, rows=2, columns=2) as (_, axes):
        figure.draw(tables, axes)
        assert [len(ax.get_lines()) for ax in axes.flat] == [3, 3, 3, 3]
