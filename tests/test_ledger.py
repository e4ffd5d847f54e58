"""Is what components count read under their names, and a warm-up taken off? Are times within the error stated?"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsim.base.histogram import EXACT, PRECISION, Histogram
from vmsim.base.ledger import Ledger

times = st.lists(st.integers(0, (1 << 63) - 1), max_size=50)


def test_a_warm_up_is_what_had_been_counted_when_it_ended() -> None:
    hits, walks, waited = {"hits": 0}, np.zeros((2, 3), np.int64), Histogram()
    ledger = Ledger()
    ledger.counters("tlb", lambda: hits)
    ledger.array("walks", walks, ("guest", "nested"), "123")
    ledger.histogram("wait", waited)
    hits["hits"], walks[1, 2] = 5, 7
    waited.add(100)
    warm = ledger.read()
    hits["hits"], walks[1, 2], walks[0, 0] = 12, 9, 1
    waited.add(300, 2)
    found = ledger.read() - warm
    assert [*found.rows()] == [
        ("tlb", "hits", 12 - 5),
        ("walks", "guest.1", 1),
        ("walks", "nested.3", 9 - 7),
        ("wait", "count", 2),
        ("wait", "cycles", 600),
    ]
    assert found.array("walks").tolist() == [[1, 0, 0], [0, 0, 2]]
    assert found.histogram("wait").means() == {300: 2}
    assert warm.named("tlb") == {"hits": 5}


def test_a_name_first_counted_after_the_warm_up_counts_whole() -> None:
    exits: dict[str, int] = {}
    ledger = Ledger()
    ledger.counters("exits", lambda: exits)
    warm = ledger.read()
    exits["HLT"] = 3
    assert (ledger.read() - warm).named("exits") == {"HLT": 3}
    assert warm.named("exits") == {}


def test_several_parts_of_a_component_may_count_but_not_under_one_name() -> None:
    ledger = Ledger()
    ledger.counters("shadow", lambda: {"filled": 1})
    ledger.counters("shadow", lambda: {"to_nested": 2})
    assert ledger.read().named("shadow") == {"filled": 1, "to_nested": 2}
    ledger.counters("shadow", lambda: {"filled": 4})
    with pytest.raises(ValueError, match="two counters are called filled"):
        ledger.read()


def test_an_array_needs_a_name_for_each_place() -> None:
    with pytest.raises(ValueError, match="component data"):
        Ledger().array("data", np.zeros(4, np.int64), ("L1", "L2", "LLC"))


def add_all(histogram: Histogram, values: Iterable[int]) -> None:
    for value in values:
        histogram.add(value)


@given(times)
def test_every_time_is_within_the_stated_error_and_sums_are_exact(values: list[int]) -> None:
    histogram = Histogram()
    add_all(histogram, values)
    shown = [mean for mean, count in histogram.means().items() for _ in range(count)]
    assert (histogram.count, histogram.total) == (len(values), sum(values))
    assert len(shown) == len(values)
    for value, mean in zip(sorted(values), shown, strict=True):  # buckets are ranges: the order is kept
        assert abs(value - mean) * 2**PRECISION <= value
        assert value >= EXACT or value == mean


@given(st.integers(0, (1 << 63) - 1), st.integers(1, 9))
def test_a_time_alone_in_its_bucket_is_exact(value: int, count: int) -> None:
    histogram = Histogram()
    histogram.add(value, count)
    assert histogram.means() == {value: count}


@given(times, times)
def test_a_difference_has_what_was_added_since(before: list[int], after: list[int]) -> None:
    whole, late = Histogram(), Histogram()
    add_all(whole, before)
    early = whole.copy()
    add_all(whole, after)
    add_all(late, after)
    assert (whole - early).means() == late.means()
    assert (whole - early).total == sum(after)


def test_buckets_are_no_more_than_stated() -> None:
    """Below 2**10 one for each value, and 2**9 for each of the 53 powers of two from there to 2**63."""
    histogram = Histogram()
    add_all(histogram, range(EXACT))
    for power in range(PRECISION + 1, 63):
        step = 1 << (power - PRECISION)
        add_all(histogram, range(1 << power, 2 << power, step))
        add_all(histogram, range((1 << power) + step // 2, 2 << power, step))
    assert len(histogram) == 1024 + 53 * 512 == 28_160
