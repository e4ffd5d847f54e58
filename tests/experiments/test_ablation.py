"""Does the ablation's table say what its studies say, and does its figure's message hold?"""

from collections.abc import Callable, Mapping
from math import inf, isclose
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from vmsim.validation import ablation, instlat
from vmsim.validation.ablation import MECHANISMS, STUDIES, Study, ablate, pairs
from vmsim.validation.report import Claim, Report

PAGE = " ".join((Path(__file__).resolve().parents[2] / "docs" / "reference" / "validation.md").read_text().split())


@pytest.fixture(scope="module")
def table(figure_of: Callable[[str], SimpleNamespace]) -> pd.DataFrame:
    made: pd.DataFrame = figure_of("ablation").data()
    return made.set_index(["study", "mechanism"])


def test_an_error_of_one_band_is_the_edge_of_agreement() -> None:
    for claim in (
        Claim("share", 115.0, 100.0, 0.15),
        Claim("slack", 18.0, 10.0, 0.3, slack=8),
        Claim("inside", 4.6, 4.01, None, inside=(3.9, 4.6)),
    ):
        assert claim.bands is not None
        assert isclose(claim.bands, 1)
    assert Claim("shown", 1.0, 1.0, None).bands is None
    assert Claim("exact", 1.0, 0.0, 0.5).bands is None
    assert Claim("off", 70.0, 100.0, 0.15).bands == pytest.approx(2)


def test_each_mechanism_concerns_a_study_and_changes_it() -> None:
    changed = [(study, mechanism, scenario) for study, mechanism, scenario in pairs()]
    assert {mechanism for _, mechanism, _ in changed} == {*MECHANISMS}
    assert {study for study, _, _ in changed} == {*STUDIES}
    for study, mechanism, scenario in changed:
        assert scenario.canonical() != STUDIES[study].scenario().canonical(), (study, mechanism)


def test_without_its_policies_a_preset_has_none() -> None:
    kept = {(study, mechanism): scenario for study, mechanism, scenario in pairs()}
    text = str(kept["instlat, skylake-x", "replacement policies"].cpu.canonical())
    assert "plru" in str(STUDIES["instlat, skylake-x"].scenario().cpu.canonical())
    assert "plru" not in text
    assert "xor" in text
    assert "xor" not in str(kept["instlat, skylake-x", "set hash of the TLB"].cpu.canonical())


def test_what_a_changed_study_no_longer_predicts_does_not_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(changes: Mapping[str, Any]) -> Report:
        claims = [Claim("near", 1.02, 1.0, 0.1), Claim("far", 1.5, 1.0, 0.1), Claim("shown", 1.0, 1.0, None)]
        if changes:
            claims = [Claim("near", 1.3, 1.0, 0.1), Claim("new", 1.0, 1.0, 0.1)]
        return Report("", "", {}, (*claims, Claim("exact", 1.0, 1.0, 0.1, kind="conformance")))

    study = Study("instlat.toml", "skylake-x", predict, walks_alone=False, compares=False)
    monkeypatch.setitem(ablation.STUDIES, "made up", study)
    kept, added = ablate(["made up"], ["data in the caches", "L3 filled by victims"], jobs=1)
    assert kept == ("made up", "data in the caches", True, 1, 0, 2, pytest.approx(2.6), inf)
    assert added == ("made up", "L3 filled by victims", False, 0, 1, 2, inf, pytest.approx(2.6))


@pytest.mark.slow
def test_a_study_run_again_gives_its_row(table: pd.DataFrame) -> None:
    """Counted here by the study's own verdicts."""
    (row,) = ablate(["instlat, sandy-bridge"], ["time of a second-TLB hit"], jobs=1)
    assert list(row[2:6]) == list(table.loc[(row.study, row.mechanism)].iloc[1:5])
    assert row.error_with == pytest.approx(table.loc[(row.study, row.mechanism), "error_with"], abs=1e-6)
    report = instlat.predict(["sandy-bridge"], changes={"host.cpu_override.tlb.l2_cycles": 0})
    assert report.counts["prediction"][0] == row.agree_without  # of fewer: a knee is not reached
    assert row.agree_without < row.agree_with == row.of


def test_what_a_study_is_as_it_is_each_of_its_rows_says_alike(table: pd.DataFrame) -> None:
    """With what it has, and without what it lacks."""
    for _, rows in table.groupby("study"):
        as_it_is = {
            (row.agree_with, row.error_with) if row.kept else (row.agree_without, row.error_without)
            for row in rows.itertuples()
        }
        assert len(as_it_is) == 1


def test_policies_of_replacement_are_no_cause_of_what_misses(table: pd.DataFrame) -> None:
    rows = table.xs("replacement policies", level="mechanism")
    assert (rows["agree_with"] == rows["agree_without"]).all()
    assert (rows["error_with"] - rows["error_without"]).abs().max() < 0.1


def test_walk_caches_and_what_data_do_to_the_caches_matter_most(table: pd.DataFrame) -> None:
    for mechanism in ("page walk caches", "data in the caches"):
        rows = table.xs(mechanism, level="mechanism")
        assert rows["agree_with"].sum() > rows["agree_without"].sum() + 5


def test_scattered_tables_help_where_nested_walks_look_for_guest_tables(table: pd.DataFrame) -> None:
    row = table.loc[("bhargava", "tables scattered, 64MiB")]
    assert row["agree_with"] > row["agree_without"]
    assert row["error_with"] < row["error_without"]


def test_the_page_has_the_counts(table: pd.DataFrame) -> None:
    counts = table.groupby("mechanism")[["agree_without", "of", "agree_with"]].sum()
    first, second = (
        "{} of {} rows agree where {} do".format(*counts.loc["page walk caches"]),
        "{} of {} where {} do".format(*counts.loc["data in the caches"]),
    )
    assert f"without the one {first}, without the other {second}" in PAGE
    row = table.loc[("instlat, skylake-x", "time of a second-TLB hit")]
    assert f"{row['agree_without']} of {row['of']} rows would agree, {row['agree_with']} do" in PAGE
