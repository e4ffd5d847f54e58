"""Does `vmsim mrc` print the curves of traces, scenarios and runs?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vmsim.workloads.export import describe
from vmsim.workloads.trace import find


def test_a_trace_misses_all_first_touches_in_any_memory(vmsim) -> None:
    (curve,) = json.loads(vmsim("mrc", "sort", "--json").out)
    told = describe(find("sort", Path()))
    ratios = [row["miss_ratio"] for row in curve["curve"]]
    assert curve["accesses"] == told["replayed"]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] == pytest.approx(curve["first_touch"], abs=1e-12)
    assert told["pages"] <= round(curve["first_touch"] * curve["accesses"])
    assert {row["error"] for row in curve["curve"]} == {0.0}


def test_vms_have_curves_of_their_own_also_from_a_run(file: Path, tmp_path: Path, vmsim) -> None:
    whole = json.loads(vmsim("mrc", file, "--json").out)
    assert [each["name"] for each in whole] == ["db-0", "db-1"]
    assert vmsim("run", file, "--out", tmp_path / "out").status == 0
    assert json.loads(vmsim("mrc", tmp_path / "out", "--json").out) == whole
    (one,) = json.loads(vmsim("mrc", file, "--vm", "db-1", "--json").out)
    assert one == whole[1]


def test_the_screen_says_what_is_an_estimate(file: Path, vmsim) -> None:
    out = vmsim("mrc", file, "--pages", "64").out
    assert "standard error" in out
    assert "±" in out
    assert "standard error" not in vmsim("mrc", file).out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sort", "--vm", "db-0"], "a trace has no VMs"),
        (["sort", "--sample", "0"], "expected a share from"),
        (["sort", "--sample", "nan"], "expected a share from"),
        (["sort", "--sample", "0.1", "--pages", "7"], "expected one of the two"),
        (["srot"], "Did you mean 'sort'?"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(words: list[str], said: str, vmsim) -> None:
    done = vmsim("mrc", *words)
    assert done.status == 2
    assert said in done.err


def test_a_figure_is_not_overwritten_unasked(tmp_path: Path, vmsim) -> None:
    figure = tmp_path / "curve.png"
    assert vmsim("mrc", "sort", "--figure", figure).status == 0
    drawn = figure.read_bytes()
    assert vmsim("mrc", "sort", "--figure", figure).status == 2
    assert vmsim("mrc", "sort", "--figure", figure, "--force").status == 0
    assert figure.read_bytes() == drawn
