"""Does the message of the figure on pools under pressure hold?"""

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest

from vmsim.scenario.cpu_files import load_cpu

READ = 52.632  # us: the device's, of one page (Samsung 970 EVO Plus, QD1)


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("pool-pressure").data()
    return made.set_index(["pool_max", "pool_min", "batch"])


def test_the_99th_percentile_is_the_devices_whatever_the_pool_is_told(table: pd.DataFrame) -> None:
    """A read, and what the guest, the exit and the host take; a large refill that all wait for is longer still."""
    refills = table.index.map(lambda row: row[1] == 0 and min(row[0], row[2]) >= 128)
    assert table["p99_us"][~refills].between(READ, READ + 2.5).all()
    cost = load_cpu("skylake-x").cost
    refill = (cost.message + cost.grant_fixed + 128 * (cost.grant_page + cost.host_zero)) / 3300
    assert (table["p99_us"][refills] > max(READ + 10, refill)).all()


def test_no_minimum_means_waits_for_refills(table: pd.DataFrame) -> None:
    waiting = table["waiting"].unstack("pool_min")
    assert (waiting[0] > 0.08).all()
    assert (waiting[8].drop(128, level="batch").round(2) == 0.01).all()


def test_what_lies_in_pools_is_swapped_by_others(table: pd.DataFrame) -> None:
    swapped, cycles = table["swapped"], table["cycles_per_access"]
    assert swapped.idxmax() == (512, 64, 128)
    assert cycles.idxmax() == (512, 64, 128)
    assert swapped.max() > 1.7 * swapped[512, 8, 8]
    assert cycles.max() > 1.4 * cycles[512, 8, 8]


def test_small_refills_and_no_minimum_are_best_and_a_small_one_near_it(table: pd.DataFrame) -> None:
    cycles, swapped = table["cycles_per_access"], table["swapped"]
    for maximum in (32, 128, 512):
        assert cycles[maximum, 0, 8] == cycles.min()
        assert cycles[maximum, 8, 8] / cycles.min() == pytest.approx(1.02, abs=0.005)
        assert swapped[maximum, 0, 8] < 0.8 * swapped[maximum, 8, 8]
