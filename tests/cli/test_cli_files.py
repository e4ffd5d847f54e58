"""Do files to begin with come out right, are wrong ones found without a run, and are runs printed and compared?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vmsim import Scenario, run
from vmsim.cli.init import EXAMPLES
from vmsim.scenario import cpu_names


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_init_writes_can_be_used(example: str, tmp_path: Path, vmsim: Any) -> None:
    folder = tmp_path / "mine"
    files = json.loads(vmsim("init", folder, "--example", example, "--json").out)["files"]
    assert sorted(files) == sorted(map(str, folder.iterdir()))
    said = json.loads(vmsim("check", folder / "scenario.toml", folder / "sweep.toml", "--json").out)["files"]
    assert [(each["kind"], each["error"]) for each in said] == [("scenario", None), ("sweep", None)]
    for name in ("scenario", "sweep"):  # editors look for the schema there
        place = (folder / f"{name}.toml").read_text().splitlines()[0].removeprefix("#:schema ")
        assert json.loads((folder / place).read_text())["title"] == f"vmsim {name}"
    again = vmsim("init", folder)
    assert (again.status, "scenario.toml is there" in again.err) == (2, True)
    assert vmsim("init", folder, "--force").status == 0


@pytest.mark.parametrize(("kind", "lasts"), [("uniform", "accesses"), ("churn", "rounds"), ("gups", "updates")])
def test_a_kind_of_workload_is_all_that_a_scenario_must_say(kind: str, lasts: str) -> None:
    scenario = Scenario.from_toml(f'vm = [{{ workload.kind = "{kind}" }}]')
    result = run(scenario, **{f"vm.workload.{lasts}": 50})
    assert result.summary["vm"].to_list() == ["vm"]
    assert result.ending is None


def test_check_finds_all_that_is_wrong(tmp_path: Path, file: Path, vmsim: Any) -> None:
    good, trace, point, nothing = (tmp_path / f"{name}.toml" for name in ("good", "trace", "point", "nothing"))
    good.write_text(file.read_text())
    trace.write_text('[[vm]]\nworkload = { kind = "trace", path = "none.vmtrace" }\n')
    point.write_text('base = "good.toml"\n[axes]\n"host.cores" = [1, 0]\n')
    nothing.write_text("a = 1\n")
    cpu = tmp_path / "cpu.toml"
    cpu.write_text('name = "mine"\ninherit = "zen4"\n')
    said = vmsim("check", good, trace, point, nothing, cpu)
    assert said.status == 2
    assert "1 VM" not in said.out
    assert "2 VMs on skylake-x, ept" in said.out
    assert "CPU file" in said.out
    for words in ("none.vmtrace", "host.cores", "nothing.toml: it has none of the keys"):
        assert words in said.err
    found = json.loads(vmsim("check", good, trace, "--json").out)["files"]
    assert [each["error"] is None for each in found] == [True, False]
    assert found[1]["error"]["message"]


def test_check_knows_every_preset(vmsim: Any) -> None:
    import vmsim as package

    folder = Path(package.__file__).parent / "scenario" / "cpus"
    files = [folder / f"{name}.toml" for name in cpu_names() if (folder / f"{name}.toml").exists()]
    assert vmsim("check", *files).status == 0


def test_a_run_is_shown_as_it_was_printed(tmp_path: Path, file: Path, vmsim: Any) -> None:
    kept = tmp_path / "run"
    printed = vmsim("run", file, "--out", kept).out
    shown = vmsim("show", kept)
    assert shown.status == 0
    assert printed.startswith(shown.out)
    rows = json.loads(vmsim("show", kept, "--table", "exits", "--json").out)
    assert {row["vm"] for row in rows} == {"db-0", "db-1"}
    assert all(str(row["vm"]) in vmsim("show", kept, "--table", "exits").out for row in rows)
    both = tmp_path / "both"
    printed = vmsim("compare", file, "--modes", "native,ept", "--out", both).out
    assert printed.startswith(vmsim("show", both).out)
    assert "is a comparison" in vmsim("diff", kept, both).err


def test_two_runs_differ_in_what_was_changed(tmp_path: Path, file: Path, vmsim: Any) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    vmsim("run", file, "--out", a)
    vmsim("run", file, "--set", "vm.host_page=2M", "--out", b)
    found = json.loads(vmsim("diff", a, b, "--json").out)
    assert found["keys"] == [{"key": "vm.db.host_page", "a": "4K", "b": "2M"}]
    exits = [row for row in found["figures"] if row["figure"] == "VM exits"]
    # 8 MiB are 4 large pages, or 2,048 small ones beside those of page tables
    assert {row["vm"] for row in exits} == {"db-0", "db-1"}
    assert all(row["a"] > 2048 > 20 > row["b"] for row in exits)
    screen = vmsim("diff", a, b).out
    assert "vm.db.host_page" in screen
    assert "−99." in screen
    assert "0.0%" not in screen
    assert vmsim("diff", a, a).out == "The scenarios are the same, and so are all figures of each VM.\n"
