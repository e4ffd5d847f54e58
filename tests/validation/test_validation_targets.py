"""Is every published row predicted, a fact, or not attempted for a reason, and does each claim rest on what it says?"""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import pytest

from vmsim.validation import targets as module
from vmsim.validation.studies import STUDIES
from vmsim.validation.targets import STATUSES, targets

DATA = Path(module.__file__).parent / "data"


def test_no_row_of_any_file_is_forgotten_or_told_of_twice() -> None:
    said = [(each.file, row) for each in targets() for row in each.rows]
    there = {
        (path.name, number)
        for path in DATA.glob("*.csv")
        for number, _ in enumerate(csv.DictReader(path.read_text(encoding="utf-8").splitlines()), 1)
    }
    assert len(said) == len({*said})
    assert {*said} == there


def test_each_file_is_described_with_what_may_be_fitted_to_it() -> None:
    text = (DATA / "README.md").read_text(encoding="utf-8")
    assert all(path.name in text for path in DATA.glob("*.csv"))


def test_the_page_says_of_each_study_what_was_in_sight() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "validation.md").read_text(encoding="utf-8")
    part = page.split("## What was in sight\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in part.splitlines() if line.startswith("| `")]
    assert [name.strip(" `") for name, *_ in rows] == [*dict.fromkeys(name.strip(" `") for name, *_ in rows)]
    assert {name.strip(" `") for name, *_ in rows} == {*STUDIES}
    assert all(len(cells) == 3 and all(cell.strip() for cell in cells) for cells in rows)


def test_who_predicts_is_a_study_and_what_is_left_out_has_a_reason() -> None:
    for each in targets():
        assert each.status in STATUSES
        if each.status in ("fact", "not attempted"):
            assert each.why
            assert not each.study
        else:
            assert each.study in STUDIES
    assert {each.study for each in targets() if each.study} == {*STUDIES}


def test_a_row_that_nobody_speaks_of_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tomllib.loads((DATA / "targets.toml").read_text(encoding="utf-8"))
    monkeypatch.setattr(tomllib, "loads", lambda _: whole | {"tlb_flush_micro": whole["tlb_flush_micro"][:-1]})
    with pytest.raises(ValueError, match=r"tlb_flush_micro\.csv: nothing is said of rows 3"):
        [*module._read()]
    extra = [*whole["tlb_flush_micro"], {"what": "more", "status": "fact", "why": "none"}]
    monkeypatch.setattr(tomllib, "loads", lambda _: whole | {"tlb_flush_micro": extra})
    with pytest.raises(ValueError, match="no row is left for 'more'"):
        [*module._read()]
