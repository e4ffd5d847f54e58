"""Does the lazy-eager figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

from vmsim.scenario.cpu_files import load_cpu

PAGES = 256
COST = load_cpu("skylake-x").cost
ENTRY = COST.violation_entry + COST.violation_rmap
FAULT = COST.page_fault_exit + COST.vm_entry + COST.violation_resume + 4 * COST.guest_walk_level


@pytest.fixture(scope="module")
def figure(figure_of: Callable[[str], SimpleNamespace]) -> SimpleNamespace:
    return figure_of("lazy-eager")


@pytest.fixture(scope="module")
def table(figure: SimpleNamespace) -> pd.DataFrame:
    made: pd.DataFrame = figure.data()
    return made


@pytest.fixture(scope="module")
def lines(table: pd.DataFrame) -> pd.DataFrame:
    """Return exits and cycles of a turn by share used, a column for each on_cr3 and fill."""
    return table.pivot_table(index="share", columns=["on_cr3", "fill"], values=["exits", "cycles"])


def test_lazy_exits_once_for_each_mapping_used_and_eager_never(lines: pd.DataFrame) -> None:
    """That is also the test of the axis: the share expected is the share used."""
    exits = lines["exits"]["flush"]
    for share, count in exits["lazy"].items():
        assert count - 1 == pytest.approx(share * PAGES, rel=0.04)
    assert (exits["eager"] == 1).all()  # the load of CR3


def test_eager_pays_for_every_mapping_used_or_not(lines: pd.DataFrame) -> None:
    eager = lines["cycles"]["flush"]["eager"]
    assert eager.nunique() == 1
    assert eager.iloc[0] == pytest.approx(PAGES * ENTRY, rel=0.05)


def test_lazy_pays_for_what_is_used(lines: pd.DataFrame) -> None:
    lazy = lines["cycles"]["flush"]["lazy"]
    assert lazy.is_monotonic_increasing
    assert lazy.iloc[-1] == pytest.approx(PAGES * (FAULT + ENTRY), rel=0.1)


def test_they_break_even_at_an_entrys_part_of_a_lazy_fault(figure: SimpleNamespace, table: pd.DataFrame) -> None:
    share, _ = figure.break_even(table)
    assert share == pytest.approx(ENTRY / (FAULT + ENTRY), rel=0.05)
    assert share < 1 / 3


def test_where_the_shadow_is_kept_there_is_nothing_to_choose(lines: pd.DataFrame) -> None:
    kept = lines["cycles"]["cache"]
    assert (kept["lazy"] == kept["eager"]).all()
    assert kept["lazy"].max() < lines["cycles"]["flush"].min(axis=None) / 10
