"""Does the interval over replicates say what it should?"""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsim.base.errors import InputError
from vmsim.sweeps.statistics import summarize

NUMBERS = st.floats(-1e6, 1e6).map(lambda number: round(number, 3))


def test_it_is_students_interval() -> None:
    # t(0.975; 4) = 2.776445 and t(0.95; 4) = 2.131847, as in any printed table; the sample has s = sqrt(2.5).
    table = pd.DataFrame({"pool": ["a"] * 5, "cycles": [1, 2, 3, 4, 5]})
    wide, narrow = (summarize(table, "pool", "cycles", level=level).iloc[0] for level in (0.95, 0.90))
    assert wide["n"] == 5
    assert wide["mean"] == 3
    assert wide["std"] == pytest.approx(math.sqrt(2.5))
    for row, quantile in ((wide, 2.776445), (narrow, 2.131847)):
        half = quantile * math.sqrt(2.5 / 5)
        assert (row["low"], row["high"]) == pytest.approx((3 - half, 3 + half), rel=1e-6)


def test_it_covers_the_true_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    table = pd.DataFrame({"trial": np.repeat(np.arange(4000), 6), "x": random.normal(7.0, 2.0, 24000)})
    made = summarize(table, by=["trial"], value="x", level=0.8)
    covered = ((made["low"] <= 7) & (made["high"] >= 7)).mean()
    assert 0.78 < covered < 0.82  # 3 standard errors of the share


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), NUMBERS), min_size=1, max_size=40))
def test_each_group_is_summarised_by_itself_and_in_the_order_met(rows: list[tuple[str, bool, float]]) -> None:
    table = pd.DataFrame(rows, columns=["mode", "large", "x"])
    made = summarize(table, ["mode", "large"], "x")
    groups = list(dict.fromkeys((mode, large) for mode, large, _ in rows))
    assert list(zip(made["mode"], made["large"], strict=True)) == groups
    for (mode, large), row in zip(groups, made.itertuples(), strict=True):
        mine = [x for m, h, x in rows if (m, h) == (mode, large)]
        assert row.n == len(mine)
        assert row.mean == pytest.approx(sum(mine) / len(mine), abs=1e-6)
        if len(mine) == 1:
            assert math.isnan(row.low)
            assert math.isnan(row.high)
        else:
            assert row.low <= row.mean + 1e-6
            assert row.mean <= row.high + 1e-6


def test_several_columns_come_one_below_the_other() -> None:
    table = pd.DataFrame({"mode": ["ept", "ept", "npt"], "x": [1, 3, 5], "y": [2.0, np.nan, 4.0]})
    made = summarize(table, "mode", ["x", "y"])
    assert made.columns.tolist() == ["mode", "value", "n", "mean", "std", "low", "high"]
    assert made[["mode", "value", "n", "mean"]].to_numpy().tolist() == [
        ["ept", "x", 2, 2.0],
        ["npt", "x", 1, 5.0],
        ["ept", "y", 1, 2.0],
        ["npt", "y", 1, 4.0],
    ]


def test_rows_whose_axis_is_missing_are_a_group_too() -> None:
    table = pd.DataFrame({"host_page": ["2M", None, None], "x": [1, 2, 4]})
    assert summarize(table, "host_page", "x")["n"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("by", "value", "level", "said"),
    [
        ("moed", "x", 0.95, "Did you mean 'mode'"),
        ("mode", "z", 0.95, "no column 'z'"),
        ("mode", "mode", 0.95, "column of numbers"),
        ("mode", "x", 95, "such as 0.95"),
        ([], "x", 0.95, "by: expected at least one column"),
        ("mode", [], 0.95, "value: expected at least one column"),
    ],
)
def test_what_cannot_be_summarised_is_refused(by: str, value: str, level: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        summarize(pd.DataFrame({"mode": ["ept"], "x": [1]}), by, value, level=level)
