"""Does `vmsim advise` say what it found, in sentences and on a narrow screen?"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from rich.console import Console

from vmsim.advice.questions import QUESTIONS
from vmsim.cli import root

TINY = """
seed = 1
[host]
cpu = "yardstick"
cores = 1
memory = "16MiB"
[[vm]]
name = "db"
memory = "4MiB"
mode = "ept"
[vm.workload]
kind = "uniform"
footprint = "64KiB"
accesses = 500
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def test_questions_are_listed_and_completed(vmsim: Callable[..., Any]) -> None:
    said = vmsim("advise", "--list")
    assert said.status == 0
    assert all(name in said.out and each.about in said.out for name, each in QUESTIONS.items())
    assert [each["name"] for each in json.loads(vmsim("advise", "--list", "--json").out)["questions"]] == [*QUESTIONS]
    found = ShellComplete(root, {}, "vmsim", "_VMSIM_COMPLETE").get_completions(["advise"], "m")
    assert [item.value for item in found] == ["mode", "migration"]


def test_the_answer_comes_with_a_table_and_the_folder_of_its_runs(vmsim: Callable[..., Any], tiny: Path) -> None:
    asked = "advise", "mode", tiny, "--modes", "ept", "--seeds", "2", "--jobs", "1"
    said = vmsim(*asked)
    folder = tiny.with_suffix(".mode.advice")
    assert said.status == 0
    assert said.out.startswith("ept is the only mode that there is: ")
    assert said.out.endswith(f"The runs are in {folder}.\n")
    assert folder.is_dir()
    told = json.loads(vmsim(*asked, "--json").out)
    assert (told["facts"]["mode"], told["seeds"], told["sweep"]) == ("ept", 2, str(folder))
    assert told["answer"] == said.out.splitlines()[0]
    assert "2 were there" in vmsim(*asked).err


def test_it_fits_a_terminal_of_80_columns(
    vmsim: Callable[..., Any], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr("vmsim.cli.screen.standard_output", lambda: out)
    settings = "--set", "vm.workload.footprint=1MiB", "--set", "vm.workload.accesses=1000"
    vmsim("advise", "pool", tiny, "--seeds", "2", "--jobs", "1", *settings)
    vmsim("advise", "--list")
    text = out.file.getvalue()  # type: ignore[attr-defined]
    assert "batch" in text
    assert "overcommit" in text
    assert max(len(line) for line in text.splitlines() if str(tiny.parent) not in line) <= 80


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["advise"], "expected mode, pool"),
        (["advise", "mood"], "Did you mean 'mode'?"),
        (["advise", "mode"], "vmsim advise mode scenario.toml"),
        (["advise", "mode", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_what_is_missing_is_said_in_a_line(vmsim: Callable[..., Any], arguments: list[str], says: str) -> None:
    said = vmsim(*arguments)
    assert said.status == 2
    assert says in said.err
    assert "Traceback" not in said.err
