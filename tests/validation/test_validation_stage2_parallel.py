"""Is the table read as it stands, and does what is fitted come out, and no more?"""

import csv
from pathlib import Path

import pytest

from vmsim.validation import stage2_parallel
from vmsim.validation.lock_queue import ALTRA_LINE, HERTZ
from vmsim.validation.stage2_parallel import FAULTS, measured, parts, seconds

DATA = Path(__file__).parents[2] / "vmsim/validation/data/arm64_stage2_parallel22.csv"
SHARE = 0.6


def test_the_table_is_read_as_it_stands() -> None:
    assert len(measured()) == 4 * len(list(csv.DictReader(DATA.open())))
    assert measured()["dirty", "before", 2] == 1.13
    assert measured()["populate", "after", 1] == 0.18


def test_a_huge_pages_fault_holds_the_lock_as_long_as_a_small_ones() -> None:
    small, large = parts("dirty", "before", SHARE), parts("populate", "before", SHARE)
    assert small[0] == large[0] == round(SHARE * 0.89 * HERTZ / 2**20)
    assert sum(small) == pytest.approx(0.89 * HERTZ / 2**20, abs=1)
    assert sum(large) == pytest.approx(0.19 * HERTZ / 2048, abs=1)


def test_one_vcpu_is_fitted_and_two_wait_for_a_lock_that_is_held_alone() -> None:
    assert FAULTS == {"dirty": 2**20, "populate": 2**11}
    assert seconds("dirty", "before", 1, SHARE) == pytest.approx(0.89, rel=0.01)
    line = ALTRA_LINE * 2**20 / HERTZ
    assert seconds("dirty", "before", 2, SHARE) == pytest.approx(2 * (SHARE * 0.89 + line), rel=0.03)
    assert 0.92 + 2 * line < seconds("dirty", "after", 2, SHARE) < 0.92 + 4 * line


def test_two_vcpus_turn_red_if_lines_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    there = measured()["dirty", "after", 2]
    assert abs(seconds("dirty", "after", 2, SHARE) / there - 1) < 0.1
    monkeypatch.setattr(stage2_parallel, "ALTRA_LINE", 0)
    assert abs(seconds("dirty", "after", 2, SHARE) / there - 1) > 0.1
