"""Does the software-tlb figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

from vmsim.scenario.cpu_files import load_cpu

COST = load_cpu("skylake-x").cost


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("software-tlb").data()
    return made


@pytest.fixture(scope="module")
def hits(table: pd.DataFrame) -> pd.DataFrame:
    """Return hit rates by entries, a column for each program."""
    return table.pivot_table(index="entries", columns="vm", values="hit_rate")


def test_more_entries_never_hit_less(hits: pd.DataFrame) -> None:
    assert (hits.loc[0] == 0).all()
    assert (hits.diff().dropna() >= 0).all(axis=None)


def test_eight_entries_are_as_good_as_five_hundred(hits: pd.DataFrame) -> None:
    assert (hits.loc[8] > 0.96 * hits.loc[512]).all()
    assert (hits.loc[4] < 0.8 * hits.loc[512])[["churn", "compile", "switcher"]].all()
    assert hits.loc[4, "cc1"] < 0.9 * hits.loc[512, "cc1"]


def test_programs_differ_from_a_quarter_to_nine_in_ten(hits: pd.DataFrame) -> None:
    best = hits.loc[512].sort_values()
    assert best.index[0] == "switcher"
    assert {*best.index[-2:]} == {"cc1", "forkwait"}  # a fault of cc1 in a file looks at up to 16 entries of one table
    assert 0.2 < best.iloc[0] < 0.3
    assert best.iloc[-1] > 0.88  # 67 entries read in a fork, each once, lie in 13 tables of parent and child


def test_what_is_saved_is_a_walk_less_a_look_up_for_each_hit(table: pd.DataFrame) -> None:
    """A walk to a program's page reads four entries, to a table three: the kernel maps 64 MiB by pages of 2 MiB."""
    most, least = (reads * COST.guest_walk_level - COST.software_tlb_hit for reads in (4, 3))
    without = table[table["entries"] == 0].set_index("vm")["exit_cycles"]
    less = table["vm"].map(without) - table["exit_cycles"]
    assert (less == table["software_tlb_saved_cycles"]).all()
    hits = (table["hit_rate"] * table["look_ups"]).round()
    assert ((least * hits <= less) & (less <= most * hits)).all()


def test_it_saves_no_more_than_a_twentieth_of_the_monitors_cycles(table: pd.DataFrame) -> None:
    assert 0.03 < table["saved"].max() < 0.05
