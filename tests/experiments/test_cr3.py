"""Does the cr3 figure's message hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

from vmsim.scenario.cpu_files import load_cpu

PAGES = 256  # of each process
FLUSH, FEW, CACHE = ("shadow", "flush", 1024), ("shadow", "cache", 16), ("shadow", "cache", 1024)
EPT = ("ept", "cache", 1024)
COST = load_cpu("skylake-x").cost


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    """Return figures by switch rate, a column for each way."""
    made: pd.DataFrame = figure_of("cr3").data()
    return made.pivot_table(
        index="rate", columns=["paging", "on_cr3", "most"], values=["relative", "exits", "exit_cycles"]
    )


def test_dropped_it_is_filled_again_with_all_that_a_turn_uses(table: pd.DataFrame) -> None:
    exits = table["exits"][FLUSH]
    assert (exits[exits.index < 1000] == 1 + PAGES).all()
    for rate, count in exits[exits.index >= 1000].items():
        assert count - 1 == pytest.approx(PAGES * (1 - (1 - 1 / PAGES) ** (1e6 / rate)), rel=0.02)


def test_kept_a_switch_takes_one_exit(table: pd.DataFrame) -> None:
    """But for pages first written in the figures, which exit once more."""
    assert table["exits"][CACHE].between(1, 1.02).all()
    load = COST.vm_exit + COST.violation_resume
    assert table["exit_cycles"][CACHE].between(load, 1.02 * load).all()


def test_with_too_little_room_keeping_is_dropping(table: pd.DataFrame) -> None:
    ways = table["relative"]
    assert (ways[FEW] / ways[FLUSH] - 1).abs().max() < 0.001
    assert (table["exits"][FEW] == table["exits"][FLUSH]).all()


def test_dropped_some_hundreds_of_switches_in_a_million_accesses_make_it_ten_times_as_long(table: pd.DataFrame) -> None:
    time = table["relative"][FLUSH]
    assert (time[time.index < 150] < 10).all()
    assert (time[time.index > 300] > 10).all()
    assert time.iloc[0] > 1.1


def test_short_turns_use_fewer_pages_so_the_ratio_peaks(table: pd.DataFrame) -> None:
    time = table["relative"][FLUSH]
    assert time.iloc[0] < time.iloc[-1] < time.max()


def test_kept_it_costs_a_tenth_or_less_up_to_a_thousand_switches(table: pd.DataFrame) -> None:
    time = table["relative"][CACHE]
    assert time.is_monotonic_increasing
    assert (time[time.index <= 1000] < 1.1).all()
    assert time.max() < 1.5


def test_ept_does_not_notice(table: pd.DataFrame) -> None:
    assert (table["relative"][EPT] - 1).abs().max() < 0.001
