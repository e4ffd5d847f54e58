"""Does each documented table have an accessor, on runs and on comparisons?"""

import re
import typing
from pathlib import Path

import pandas as pd
import pytest

from vmsim.base.errors import InputError
from vmsim.record.accessors import Tables
from vmsim.record.comparison import Comparison
from vmsim.record.result import Result
from vmsim.record.tables import TABLES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reference" / "tables.md"


@pytest.fixture
def comparison(result: Result) -> Comparison:
    return Comparison({"ept": result, "native": result})


def test_every_documented_table_is_an_attribute_of_both(result: Result, comparison: Comparison) -> None:
    documented = re.findall(r"^## (\w+)$", DOCUMENT.read_text(), re.MULTILINE)
    assert {*documented} == {*TABLES}
    for name in documented:
        pd.testing.assert_frame_equal(getattr(result, name), result.table(name))
        assert (
            getattr(comparison, name)["mode"].tolist()
            == [mode for mode in ("ept", "native") for _ in range(len(result.table(name)))]
            or name == "summary"
        )
        assert {name} <= {*dir(result)} & {*dir(comparison)}


def test_what_type_checkers_see_is_what_there_is() -> None:
    hints = {name for name in Tables.__annotations__ if not name.startswith("_")}
    assert hints == {*TABLES}
    assert all(isinstance(vars(Tables)[name], property) for name in hints)
    assert all(f"{column}" in str(vars(Tables)[name].__doc__) for name in hints for column in TABLES[name][0])
    assert typing.get_type_hints(Tables, {"pd": pd})["exits"] is pd.DataFrame


def test_a_table_that_there_is_not_is_refused_with_the_nearest(result: Result, comparison: Comparison) -> None:
    for each in (result, comparison):
        with pytest.raises(InputError, match="'exits'"):
            each.table("exit")
        with pytest.raises(AttributeError):
            each.exit  # type: ignore[attr-defined, union-attr]  # noqa: B018


def test_only_save_is_public_of_what_writes(comparison: Comparison, tmp_path: Path) -> None:
    assert not {"write", "seal"} & {*dir(comparison)}
    comparison.save(tmp_path / "both", also=lambda folder: (folder / "note.txt").write_text("here") and None)
    assert (tmp_path / "both" / "note.txt").read_text() == "here"
