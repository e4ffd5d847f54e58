"""Is the table read as it stands, and do one vCPU and four come out as fitted?"""

import csv
from pathlib import Path

import pytest

from vmsim.validation import uffd_paging
from vmsim.validation.lock_queue import HERTZ
from vmsim.validation.uffd_paging import WAYS, fitted, measured, rate

DATA = Path(__file__).parents[2] / "vmsim/validation/data/kvm_uffd_paging23.csv"


def test_the_table_is_read_as_it_stands() -> None:
    assert len(measured()) == 2 * len(list(csv.DictReader(DATA.open())))
    assert [measured()["userfaultfd", vcpus] for vcpus in (1, 4, 16, 64)] == [150, 210, 130, 86]
    assert measured()["exits", 64] == 3482


@pytest.mark.parametrize("way", WAYS)
def test_one_vcpu_and_four_are_met_and_more_are_no_faster(way: str) -> None:
    held, apart = fitted(way)
    assert held == pytest.approx(HERTZ / measured()[way, 4] / 1000, rel=0.03)
    for vcpus in (1, 4):
        assert rate(vcpus, held, apart) == pytest.approx(measured()[way, vcpus], rel=0.01)
    assert rate(16, held, apart) == pytest.approx(measured()[way, 4], rel=0.02)


def test_only_the_rows_that_may_be_fitted_go_into_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    told = measured()
    before = fitted("exits")
    monkeypatch.setattr(uffd_paging, "measured", lambda: told | {("exits", 16): 1.0, ("exits", 64): 1.0})
    assert fitted("exits") == before
    monkeypatch.setattr(uffd_paging, "measured", lambda: told | {("exits", 4): 500.0})
    assert fitted("exits") != before
