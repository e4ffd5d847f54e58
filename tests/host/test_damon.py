"""Does DAMON merge and split regions as Linux does, find what is accessed, and act on what fits its scheme?"""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.oracle.damon import Region
from tests.oracle.damon import merge as plain_merge
from tests.oracle.damon import split as plain_split
from vmsim.host.daemons.damon.daemon import Kdamond
from vmsim.host.daemons.damon.regions import REGION, first_regions, merge, split
from vmsim.host.daemons.damon.scheme import Scheme, hotness
from vmsim.host.daemons.damon.table import Damon
from vmsim.scenario import load_cpu

COST = load_cpu("yardstick").cost


def rows(regions: np.ndarray, count: int) -> list[tuple[int, ...]]:
    return [tuple(int(each) for each in row) for row in regions[:count].tolist()]


def plain_rows(regions: list[Region]) -> list[tuple[int, ...]]:
    return [(each.start, each.end, each.accesses, each.last, each.age) for each in regions]


def drawn(random: Random, count: int) -> list[Region]:
    found, at = [], random.randint(0, 3)
    for _ in range(count):
        size = random.choice([1, 2, 3, 10, 500])
        found.append(Region(at, at + size, random.randint(0, 9), random.randint(0, 9), random.randint(0, 5)))
        at += size + random.choice([0, 0, 0, 4])
    return found


@pytest.mark.parametrize("seed", range(40))
def test_regions_merge_and_split_as_in_linux(seed):
    random = Random(seed)
    plain = drawn(random, random.randint(1, 30))
    regions = np.zeros(200, REGION)
    regions[: len(plain)] = [tuple(row) for row in plain_rows(plain)]
    threshold, largest = random.randint(0, 4), random.choice([3, 20, 2000])
    count = int(merge(regions, len(plain), threshold, largest))
    plain = plain_merge(plain, threshold, largest)
    assert rows(regions, count) == plain_rows(plain)
    pieces = random.choice([2, 3])
    draws = np.array([random.randint(1, 9) for _ in range(2 * count)])
    made = np.zeros(200, REGION)
    total = int(split(regions, count, pieces, draws, made))
    expected = plain_split(plain, pieces, draws.reshape(-1, 2).tolist())
    assert rows(made, total) == plain_rows(expected)
    assert sum(each.size for each in expected) == sum(each.size for each in plain)


def test_memory_is_divided_evenly_at_first():
    regions, count = first_regions(103, 10, 30)
    assert count == 10
    assert rows(regions, 10)[-1][:2] == (90, 103)
    assert first_regions(4, 10, 30)[1] == 4


class Pages:
    """A memory of which some pages are accessed all the time."""

    flushes_each = True
    owner = 0

    def __init__(self, numbers: int, hot: range) -> None:
        self.numbers = numbers
        self.hot = hot
        self.second = self
        self.asked = 0

    def holds_each(self, numbers: np.ndarray) -> np.ndarray:
        return np.ones(len(numbers), np.bool_)

    def age_each(self, numbers: np.ndarray, *, clear: bool) -> np.ndarray:
        self.asked += len(numbers)
        return (numbers >= self.hot.start) & (numbers < self.hot.stop)


def kdamond(pages: Pages, **keys: Any) -> Kdamond:
    vm = SimpleNamespace(pages=pages, spec=SimpleNamespace(bare=False), able=True, forget=lambda flush: 0)
    table = Damon.model_validate({"action": "stat", "sample_interval": "5ms", "aggr_interval": "100ms"} | keys)
    made = Kdamond(vm, table, COST, 10**9, 7)  # type: ignore[arg-type]
    made._host = SimpleNamespace(env=SimpleNamespace(cycle=0))  # type: ignore[assignment]
    return made


def test_what_is_accessed_is_found_in_regions_of_its_own():
    pages = Pages(100_000, range(30_000, 40_000))
    daemon = kdamond(pages)
    looks = 0
    for _ in range(30):
        for _ in range(daemon.samples):
            looks += 2 * daemon.count
            numbers = daemon._sampled()
            daemon._clear(numbers)
            daemon._look(numbers)
        daemon._merge()
        live = daemon.regions[: daemon.count].copy()
        daemon._aggregate()
    assert daemon.samples == 20  # 100 ms of 5 ms
    assert pages.asked == looks
    assert live["end"][:-1].tolist() == live["start"][1:].tolist()
    assert (live["start"][0], live["end"][-1]) == (0, 100_000)
    sizes = live["end"] - live["start"]
    hot = live["accesses"] >= 15
    assert abs(int(sizes[hot].sum()) - 10_000) < 2_000
    assert len(live) <= 1000


def test_a_scheme_takes_what_fits_and_by_a_quota_the_coldest_first():
    table = Damon.model_validate({"action": "migrate_cold", "target": 1, "min_age": 2, "max_accesses": 3})
    scheme = Scheme(table, 20, aggregation=10**8, second=10**9)
    regions = np.array([(0, 10, 0, 0, 5), (10, 30, 4, 4, 9), (30, 50, 3, 3, 1), (50, 60, 2, 2, 2)], REGION)
    assert [*scheme.chosen(regions, 0)] == [(0, 0, 10), (3, 50, 60)]
    table = table.model_copy(update={"quota": 15 * 4096})
    scheme = Scheme(table, 20, aggregation=10**8, second=10**9)
    assert [*scheme.chosen(regions, 0)] == [(0, 0, 10), (3, 50, 55)]
    assert [*scheme.chosen(regions, 10**9 - 1)] == []
    assert [*scheme.chosen(regions, 10**9)] == [(0, 0, 10), (3, 50, 55)]


def test_how_hot_a_region_is():
    # damon_hot_score by hand, both weights the same: 50 for half of the samples, (2 + 32) * 100 / 32 / 2 = 53 for 3 s.
    assert hotness(10, 20, 3) == (50 + 53) // 2 * 99 // 100
    assert hotness(0, 20, 3) == (46 // 2) * 99 // 100  # never accessed for 3 s: (32 - 2) * 100 / 32 / 2
    assert hotness(20, 20, 1 << 40) == 99
    assert hotness(0, 20, 1 << 40) == 0
