"""Do comparisons compare like with like?"""

import math

import pandas as pd
import pytest

from vmsim.analysis.tables import compare_modes, cycles_by_cause

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
