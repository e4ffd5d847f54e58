"""Are known misses shown and not counted, and is everything run unless a study is named?"""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import vmsim.validation.studies as studies
from vmsim.cli.validate import command
from vmsim.validation.report import Claim, Finding, Report, plain
from vmsim.validation.studies import STUDIES, known_misses, validate


def report(**keys: Any) -> Report:
    claims = (Claim("near", 10.0, 10.5, 0.1), Claim("far", 20.0, 10.0, 0.1), Claim("unknown", 1.0, None, None))
    given = {
        "title": "t",
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
        run.append(name)
        return SimpleNamespace(predict=report)

    monkeypatch.setattr(studies, "import_module", load)
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
    assert len(made) == len(STUDIES) == len(json.loads(said.output))
    assert said.return_value == 1
    monkeypatch.setattr(studies, "known_misses", lambda _: {"far": "because"})
    said = CliRunner().invoke(command, [], standalone_mode=False)
    assert said.return_value == 0
    assert said.output.count("MISS, known") == len(STUDIES)
    assert said.output.count("Known to miss (1): because") == len(STUDIES)


def test_studies_are_listed() -> None:
    said = CliRunner().invoke(command, ["--list"], standalone_mode=False)
    assert all(name in said.output and about in said.output for name, about in STUDIES.items())
    told = json.loads(CliRunner().invoke(command, ["--list", "--json"], standalone_mode=False).output)
    assert told["instlat"]["known_misses"]["skylake-x 48 MiB"]


def test_parts_need_one_study_that_has_some() -> None:
    from vmsim.base.errors import InputError

    for names in (None, ["gups"], ["agile", "instlat"]):
        with pytest.raises(InputError, match=r"agile (or|and) instlat"):
            validate(names, only=["tigr"])


def test_every_known_miss_says_why() -> None:
    assert all(why for study in STUDIES for why in known_misses(study).values())


@pytest.mark.parametrize(
    ("value", "text"),
    [(10418.0, "10,418"), (106.23, "106.2"), (5.476, "5.48"), (0.34, "0.34"), (0.0012, "0.0012"), (0.0, "0.00")],
)
def test_decimals_follow_the_size(value: float, text: str) -> None:
    assert plain(value) == text
