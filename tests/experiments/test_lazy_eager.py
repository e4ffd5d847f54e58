"""Does the lazy-eager figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

from vmsim.scenario.cpu_files import load_cpu

PAGES = 256
OF_ENTRY = ("violation_entry", "violation_rmap")
OF_FAULT = ("page_fault_exit", "vm_entry", "violation_resume", "guest_walk_level")
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
    """A quotient of guesses: the number says what was guessed, not what is."""
    share, _ = figure.break_even(table)
    assert share == pytest.approx(ENTRY / (FAULT + ENTRY), rel=0.05)
    assert share < 1 / 3


def test_the_band_has_each_guess_at_half_and_at_twice(figure: SimpleNamespace) -> None:
    cpu = load_cpu("skylake-x")
    costs = {each.key.removeprefix("cost."): each for each in cpu.figures() if each.key.startswith("cost.")}
    used = {name for name in costs if name in (*OF_ENTRY, *OF_FAULT)}
    guessed = {name for name in used if costs[name].confidence == "guess"}
    assert used - guessed == {"page_fault_exit", "violation_resume"}
    (zipped,) = figure.EXPERIMENT.sweeps["guesses"].zip
    names = figure.EXPERIMENT.sweeps["guesses"].names
    ends = {names[key][0].rsplit(".")[-1]: values for key, values in zipped.items()}
    assert {*ends} == guessed
    for name, (cheap, dear) in ends.items():
        value = costs[name].value
        assert (cheap, dear) == ((value / 2, value * 2) if name in OF_ENTRY else (value * 2, value / 2))


def test_what_is_guessed_decides_where_they_break_even(figure: SimpleNamespace, table: pd.DataFrame) -> None:
    known = COST.page_fault_exit + COST.violation_resume
    guessed = FAULT - known
    low, high = figure.band()
    assert low == pytest.approx(ENTRY / 2 / (ENTRY / 2 + known + 2 * guessed), rel=0.1)
    assert high == pytest.approx(2 * ENTRY / (2 * ENTRY + known + guessed / 2), rel=0.1)
    assert low < 0.15 < figure.break_even(table)[0] < 0.4 < high < 0.5


def test_where_the_shadow_is_kept_there_is_nothing_to_choose(lines: pd.DataFrame) -> None:
    kept = lines["cycles"]["cache"]
    assert (kept["lazy"] == kept["eager"]).all()
    assert kept["lazy"].max() < lines["cycles"]["flush"].min(axis=None) / 10
