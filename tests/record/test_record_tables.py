"""Do the tables say what the simulation measured?"""

import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmsim.record.causes import CAUSES, MANAGEMENT, TRANSLATION
from vmsim.record.columns import COLUMNS
from vmsim.record.messages import MessageLog
from vmsim.record.outcome import transfer_log
from vmsim.record.result import Result
from vmsim.record.tables import TABLES, percentile

STABLE = [
    "vm",
    "mode",
    "workload",
    "accesses",
    "l1_tlb_misses",
    "l2_tlb_misses",
    "walks",
    "walk_refs",
    "walk_cycles",
    "guest_faults",
    "exits",
    "exit_cycles",
    "pool_wait_cycles",
    "total_cycles",
    "cycles_per_access",
    "translation_cycles_per_access",
    "pcpu_wait_cycles",
    "finished",
    "software_tlb_hits",
    "software_tlb_misses",
    "software_tlb_saved_cycles",
]


def test_the_summary_has_the_columns_that_scripts_rely_on(result: Result) -> None:
    assert not set(STABLE) - set(result.summary.columns)
    assert result.summary["vm"].tolist() == ["a", "b"]


def test_references_that_a_pwc_served_are_not_counted_as_references(result: Result) -> None:
    assert result.summary["walk_refs"].tolist() == [17, 17]
    assert result.walk_references.query("served == 'PWC'")["count"].tolist() == [5, 5]


def test_messages_are_listed_by_time_with_who_says_what_to_whom(result: Result) -> None:
    assert result.rows("messages") == [
        {
            "time_cycles": 330,
            "time_us": 0.1,
            "vm": "a",
            "sender": "monitor",
            "receiver": "host",
            "kind": "need_pages",
            "pages": 8,
            "cycles": 1_000,
        },
        {
            "time_cycles": 3_300,
            "time_us": 1.0,
            "vm": "a",
            "sender": "host",
            "receiver": "monitor",
            "kind": "grant",
            "pages": 256,
            "cycles": 2_000,
        },
    ]


def test_every_cycle_has_one_cause(result: Result) -> None:
    summary = result.summary.set_index("vm")
    by_vm = result.cycles.groupby("vm")["cycles"].sum()
    pd.testing.assert_series_equal(by_vm, summary["total_cycles"], check_names=False)
    assert by_vm["a"] == summary.loc["a", "finish_cycle"] - summary.loc["a", "start_cycle"]
    assert not set(TRANSLATION) & set(MANAGEMENT)
    assert {*TRANSLATION, *MANAGEMENT} < set(CAUSES)


def test_groups_of_causes_are_sums_of_theirs(result: Result) -> None:
    row = result.summary.iloc[0]
    assert row["translation_cycles"] == 40 + 60 + 90
    assert row["management_cycles"] == 500 + 700 + 30 + 20
    assert row["walk_cycles"] == 60 + 90
    assert row[["l2_tlb_cycles", "walk_guest_cycles", "walk_nested_cycles"]].tolist() == [40, 60, 90]
    assert row["cycles_per_access"] == 2450 / 1000
    assert row["translation_cycles_per_access"] == 190 / 1000


def test_a_reference_costs_what_its_cache_takes(result: Result) -> None:
    found = result.walk_references.query("vm == 'a'").drop(columns="vm").to_numpy().tolist()
    assert [4, 4, "DRAM", 10, 2790] in found
    assert [4, 0, "L1", 7, 28] in found
    assert len(found) == 3


def test_exits_waits_and_pwc_keep_reason_cause_and_level(result: Result) -> None:
    assert result.exits.to_dict("records") == [{"vm": "a", "reason": "EPT_VIOLATION", "count": 3, "cycles": 700}]
    waits = result.waits.query("vm == 'a'").set_index("cause")
    assert waits.loc["pool_wait"].tolist() == ["a", 2, 30]
    assert result.pwc.iloc[0].tolist() == ["a", "guest", 2, 9, 3]
    assert result.data.query("vm == 'a'")["count"].tolist() == [4, 1]


def test_pool_times_are_exact_in_cycles_and_told_in_microseconds(result: Result) -> None:
    assert result.pool["time_cycles"].tolist() == [0, 3300]
    assert result.pool["time_us"].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("name", TABLES)
def test_plain_rows_and_tables_say_the_same(name: str, result: Result) -> None:
    rows = result.rows(name)
    pd.testing.assert_frame_equal(pd.DataFrame(rows), result.table(name))
    assert {type(value) for row in rows for value in row.values()} <= {int, float, str, bool}


def test_speed_is_simulated_accesses_in_a_second_of_wall_time(result: Result) -> None:
    assert result.accesses_per_second == 4000.0


@pytest.mark.parametrize("name", TABLES)
def test_dtypes_do_not_depend_on_there_being_rows(name: str, result: Result, make_outcome) -> None:
    empty = Result(result.scenario, make_outcome(vms=[], transfers=transfer_log(), messages=MessageLog(), samples={}))
    assert empty.table(name).dtypes.to_dict() == result.table(name).dtypes.to_dict()
    assert len(empty.table(name)) == 0


@given(st.dictionaries(st.integers(0, 10**9), st.integers(1, 50), min_size=1, max_size=20), st.integers(1, 100))
def test_percentiles_agree_with_numpy(counts: dict[int, int], percent: int) -> None:
    values = np.repeat(list(counts), list(counts.values()))
    assert percentile(counts, percent) == np.sort(values)[-(-len(values) * percent // 100) - 1]


def test_the_percentile_of_nothing_is_zero() -> None:
    assert percentile({}, 99) == 0


def test_the_page_on_tables_shows_every_column_with_its_unit_and_meaning() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "tables.md").read_text()
    for name, columns in COLUMNS.items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        table = section.partition("| column | unit | meaning |\n|---|---|---|\n")[2].partition("\n\n")[0]
        assert table.splitlines() == [
            f"| `{key}` | {each.unit} | {each.description} |" for key, each in columns.items()
        ]
    assert re.findall(r"^\| `(\w+)` \|", page.partition("| cause |")[2].partition("\n\n")[0], re.MULTILINE) == list(
        CAUSES
    )


def test_a_percentile_may_be_a_fraction() -> None:
    """Of 1,000 values 1 to 1,000 the smallest that 99.9 % do not exceed is 999; of 10 it is the last."""
    counts = dict.fromkeys(range(1, 1001), 1)
    assert percentile(counts, Fraction(999, 10)) == 999
    assert percentile({1: 9, 7: 1}, Fraction(999, 10)) == 7
