"""Does the message of the ksm figure hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

ZERO, IMAGE = 0.147, 0.464  # of a VM's pages, as the scenario says; the others are unique
NOISE = 0.025  # three deviations of a share of 4,096 pages that are drawn


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("ksm").data()
    return made


@pytest.fixture(scope="module")
def calm(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["written"] == 0].set_index("vms")


def test_what_is_saved_follows_from_what_pages_hold(calm: pd.DataFrame) -> None:
    """Zeros share frames of 256 pages; of an image's page N VMs have one frame. One VM has no equals but zeros."""
    for vms, row in calm.iterrows():
        others = IMAGE * (1 - 1 / vms)
        assert row["saved"] == pytest.approx(ZERO * (1 - 1 / 256) + others, abs=NOISE)
        assert row["sharing"] == pytest.approx(ZERO + (IMAGE if vms > 1 else 0), abs=NOISE)
        assert row["broken"] == 0
    assert calm["saved"].is_monotonic_increasing


def test_it_is_what_esx_shared_and_reclaimed(calm: pd.DataFrame) -> None:
    """Waldspurger, OSDI 2002, figure 4, one and two VMs, within two and a half points."""
    for vms, shared, reclaimed in ((1, 0.168, 0.126), (2, 0.611, 0.364)):
        assert calm.loc[vms, "sharing"] == pytest.approx(shared, abs=0.025)
        assert calm.loc[vms, "saved"] == pytest.approx(reclaimed, abs=0.025)


def test_writes_leave_less_to_share_and_break_what_is_shared(table: pd.DataFrame) -> None:
    saved, broken = (table.pivot_table(index="vms", columns="written", values=name) for name in ("saved", "broken"))
    merged = table.pivot_table(index="vms", columns="written", values="merged")
    assert (saved[0.0] > saved[0.05]).all()
    assert (saved[0.05] > saved[0.2]).all()
    assert (broken[0.05] > 0).all()
    assert (broken[0.2] > broken[0.05]).all()
    assert (broken <= merged).all().all()
