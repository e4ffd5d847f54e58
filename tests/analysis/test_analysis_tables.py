"""Do comparisons compare like with like?"""

import math

import pandas as pd
import pytest

from vmsim.analysis.tables import compare_modes, cycles_by_cause, exits_by_reason, memory_by_kind, side_by_side

SUMMARY = pd.DataFrame(
    {
        "vm": ["a", "b", "a", "b"],
        "mode": ["ept", "ept", "native", "native"],
        "workload": ["sort", "sort", "sort", "sort"],
        "accesses": [100, 300, 100, 300],
        "cycles_per_access": [6.0, 5.0, 2.0, 4.0],
        "management_cycles_per_access": [3.0, 3.0, 0.0, 1.0],
    }
)
CYCLES = pd.DataFrame(
    {
        "mode": ["ept"] * 4 + ["native"] * 2,
        "vm": ["a", "a", "b", "b", "a", "b"],
        "cause": ["exit", "compute", "exit", "compute", "compute", "compute"],
        "cycles": [500, 100, 1200, 300, 200, 1200],
        "per_access": [5.0, 1.0, 4.0, 1.0, 2.0, 4.0],
    }
)


def test_ratios_are_to_native_wherever_it_stands() -> None:
    wide = compare_modes(SUMMARY)
    assert wide.columns.tolist() == ["vm", "workload", "ept", "native", "ept/native"]
    assert wide["ept/native"].tolist() == [3.0, 1.25]


def test_without_native_ratios_are_to_the_first_mode() -> None:
    npt = SUMMARY.assign(mode=SUMMARY["mode"].replace("native", "npt"))
    assert compare_modes(npt)["npt/ept"].tolist() == [2 / 6, 4 / 5]


def test_a_ratio_to_nothing_is_not_a_number() -> None:
    ratios = compare_modes(SUMMARY, "management_cycles_per_access")["ept/native"].tolist()
    assert math.isnan(ratios[0])
    assert ratios[1] == 3.0


def test_vms_with_one_workload_are_weighed_by_their_accesses() -> None:
    table = cycles_by_cause(SUMMARY, CYCLES).set_index(["mode", "cause"])
    assert table.loc[("ept", "exit"), "per_access"] == pytest.approx(1700 / 400)
    assert table.loc[("native", "compute"), "per_access"] == pytest.approx(1400 / 400)
    assert table["workload"].unique().tolist() == ["sort"]


def test_one_run_needs_no_column_of_modes() -> None:
    one = CYCLES[CYCLES["mode"] == "ept"].drop(columns="mode")
    table = cycles_by_cause(SUMMARY[SUMMARY["mode"] == "ept"], one)
    assert table["mode"].unique().tolist() == ["ept"]
    assert table["cycles"].sum() == 2100


def test_exits_of_vms_with_one_workload_add_up_and_a_mode_without_has_a_row() -> None:
    exits = pd.DataFrame(
        {
            "mode": ["ept"] * 3,
            "vm": ["a", "b", "b"],
            "reason": ["X", "X", "Y"],
            "count": [3, 5, 7],
            "cycles": [30, 50, 70],
        }
    )
    table = exits_by_reason(SUMMARY, exits)
    assert table[["mode", "reason", "count", "cycles"]].to_numpy().tolist() == [
        ["ept", "X", 8, 80],
        ["ept", "Y", 7, 70],
        ["native", "", 0, 0],
    ]
    assert table["per_access"].tolist() == [8 / 400, 7 / 400, 0.0]
    wide = side_by_side(table, "reason", "count")
    assert wide.columns.tolist() == ["workload", "reason", "ept", "native"]
    assert wide["ept"].tolist() == [8, 7]
    assert wide["native"].isna().all()


def test_memory_is_added_up_by_what_it_is_used_for() -> None:
    frames = {"guest_frames": [10, 20, 10, 20], "table_frames": [1, 2, 3, 4], "pool_frames": [0, 0, 0, 0]}
    table = memory_by_kind(SUMMARY.assign(**frames))
    assert table.set_index(["mode", "kind"])["frames"].to_dict() == {
        ("ept", "guest"): 30,
        ("native", "guest"): 30,
        ("ept", "table"): 3,
        ("native", "table"): 7,
        ("ept", "pool"): 0,
        ("native", "pool"): 0,
    }
    assert side_by_side(table, "kind", "frames")["kind"].tolist() == ["guest", "table"]  # nobody has a pool
