"""Are known misses shown and not counted, and is everything run unless a study is named?"""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

import vmsim.validation.studies as studies
from vmsim.analysis.style import figure
from vmsim.analysis.verdicts import verdicts
from vmsim.base.errors import InputError
from vmsim.cli.validate import command
from vmsim.validation.report import Claim, Finding, Fit, Report, plain
from vmsim.validation.studies import STUDIES, known_misses, validate


def report(**keys: Any) -> Report:
    claims = (Claim("near", 10.0, 10.5, 0.1), Claim("far", 20.0, 10.0, 0.1), Claim("unknown", 1.0, None, None))
    given = {
        "title": "t <b>bold</b>",
        "source": "s",
        "fitted": {},
        "claims": claims,
        "findings": (Finding("order", "a", "b", True),),
    }
    return Report(**(given | keys))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the studies: each has one miss; return those that were run."""
    run: list[str] = []

    def load(name: str) -> SimpleNamespace:
        run.append(name.removeprefix("vmsim.validation.").replace("_", "-"))
        return SimpleNamespace(predict=report)

    monkeypatch.setattr(studies, "import_module", load)
    monkeypatch.setattr(studies, "cores", lambda: 1)  # in this process
    return run


def test_a_known_miss_is_a_miss_that_does_not_count() -> None:
    told = report(known={"far": "because"})
    assert (told.ok, told.misses, told.unexpected) == (False, 1, [])
    assert "MISS, known" in str(told)
    assert told.conclusion == "2 of 3 agree; 1 known miss."
    assert report().unexpected == ["far"]
    assert report().conclusion == "2 of 3 agree; 1 unexpected miss."


def test_what_is_known_to_miss_and_agrees_is_said() -> None:
    told = report(known={"near": "because", "far": "because"})
    assert told.better == ["near"]
    assert told.conclusion.endswith("1 known to miss agree now.")


def test_without_a_name_all_are_run_and_an_unexpected_miss_is_exit_code_1(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = CliRunner().invoke(command, ["--json"], standalone_mode=False)
    told = json.loads(said.output)
    assert made == [*STUDIES] == [*told["studies"]]
    assert told["unexpected"] == {name: ["far"] for name in STUDIES}
    assert {each["status"] for each in told["targets"]} >= {"predicted", "fact", "not attempted"}
    assert said.return_value == 1
    monkeypatch.setattr(studies, "known_misses", lambda _: {"far": "because"})
    said = CliRunner().invoke(command, [], standalone_mode=False)
    assert said.return_value == 0
    assert said.output.count("MISS, known") == len(STUDIES)
    assert said.output.count("Known to miss (1): because") == len(STUDIES)


def test_studies_are_listed() -> None:
    said = CliRunner().invoke(command, ["--list"], standalone_mode=False)
    assert all(name in said.output and about in said.output for name, about in STUDIES.items())
    assert "no nested guests (L2) are simulated" in said.output
    told = json.loads(CliRunner().invoke(command, ["--list", "--json"], standalone_mode=False).output)
    assert told["studies"]["instlat"]["known_misses"]["skylake-x 48 MiB"]


def test_parts_need_one_study_that_has_some() -> None:
    for names in (["gups"], ["agile", "instlat"]):
        with pytest.raises(InputError, match=r"agile (or|and) instlat"):
            validate(names, only=["tigr"])


def test_what_agreement_is_worth_is_told_apart() -> None:
    claims = (
        Claim("a", 1.0, 1.0, 0.1),
        Claim("b", 1.0, 1.0, 0.0, kind="conformance"),
        Claim("c", 1.0, 2.0, 0.1, kind="fit"),
        Claim("d", 1.0, 1.0, 0.1, kind="fit"),
    )
    told = report(claims=claims, findings=())
    assert told.counts == {"prediction": (1, 1), "conformance": (1, 1), "fit": (1, 2)}
    assert told.conclusion == "1 of 1 agree, 1 of 1 conform, 1 of 2 as fitted; 1 unexpected miss."
    assert [told.verdict(each) for each in claims] == ["agrees", "conforms", "MISS", "fitted"]


def test_what_was_fitted_to_what_can_be_read_by_a_program() -> None:
    fit = Fit(177, "cycles", "gups_vmitosis21.csv", "run L", "nominal 200")
    told = report(fitted={"DRAM": fit, "nothing": "else"}).to_json()["fitted"]
    assert told["DRAM"] == {
        "value": 177,
        "unit": "cycles",
        "file": "gups_vmitosis21.csv",
        "rows": "run L",
        "note": "nominal 200",
    }
    assert told["nothing"] == "else"
    assert str(fit) == "177 cycles, on run L of gups_vmitosis21.csv; nominal 200"


def test_some_studies_are_named_by_only(made: list[str]) -> None:
    CliRunner().invoke(command, ["--only", "gups, mglru", "--json"], standalone_mode=False)
    assert made == ["gups", "mglru"]


@pytest.mark.slow
def test_several_at_a_time_are_as_one_after_the_other() -> None:
    names = ["linux-watermarks", "waldspurger"]
    alone, together = (validate(names, jobs=jobs) for jobs in (1, 2))
    assert [*together] == names
    for name in names:
        assert replace(together[name], seconds=0) == replace(alone[name], seconds=0)


def test_the_page_needs_nothing_else_and_its_data_lie_beside_it(tmp_path: Path, made: list[str]) -> None:
    folder = tmp_path / "page"
    said = CliRunner().invoke(command, ["--report", str(folder), "--only", "gups,mglru"], standalone_mode=False)
    assert str(folder / "index.html") in said.output
    text = (folder / "index.html").read_text()
    assert text.count('src="data:image/svg+xml;base64,') == 2
    assert not re.search(r"https?://", text)
    assert "prefers-color-scheme: dark" in text
    wide = re.findall('<div class="wide"[^>]*>', text)  # what is wider than a phone a keyboard can scroll, by its name
    assert len(wide) == text.count("<table>") + text.count("<img")
    assert all('tabindex="0"' in each and re.search('aria-label="[^"]+"', each) for each in wide)
    assert re.search(r"\d+ of \d+ predictions agree", text)
    assert "t &lt;b&gt;" in text
    assert "<b>bold" not in text
    claims = list(csv.DictReader((folder / "claims.csv").open()))
    assert [(row["study"], row["quantity"], row["verdict"]) for row in claims][:2] == [
        ("gups", "near", "agrees"),
        ("gups", "far", "MISS"),
    ]
    assert (claims[0]["low"], claims[0]["high"]) == ("9.45", "11.55")
    assert len(json.loads((folder / "validation.json").read_text())["studies"]) == 2
    with pytest.raises(InputError, match="--force"):
        CliRunner().invoke(command, ["--report", str(folder)], standalone_mode=False, catch_exceptions=False)
    CliRunner().invoke(
        command, ["--report", str(folder), "--force", "--only", "gups"], standalone_mode=False, catch_exceptions=False
    )
    assert text.count("<h2 id=") == 2
    assert (folder / "index.html").read_text().count("<h2 id=") == 1


def test_a_figure_shows_what_agrees_in_half_widths_of_its_band() -> None:
    table = pd.DataFrame(
        {
            "quantity": ["in", "out", "exact", "far"],
            "predicted": [10.5, 13.0, 4.0, 99.0],
            "low": [9.0, 9.0, 4.0, 9.0],
            "high": [11.0, 11.0, 4.0, 11.0],
            "verdict": ["agrees", "miss", "conforms", "miss"],
        }
    )
    with figure() as (_, ax):
        verdicts(table, ax)
        drawn = {str(line.get_label()): line.get_xdata().tolist() for line in ax.lines[1:]}
    assert drawn == {"agrees": [0.5], "conforms": [0.0], "miss": [3.0, 4.0]}


def test_every_known_miss_says_why() -> None:
    assert all(why for study in STUDIES for why in known_misses(study).values())


@pytest.mark.parametrize(
    ("value", "text"),
    [(10418.0, "10,418"), (106.23, "106.2"), (5.476, "5.48"), (0.34, "0.34"), (0.0012, "0.0012"), (0.0, "0.00")],
)
def test_decimals_follow_the_size(value: float, text: str) -> None:
    assert plain(value) == text
