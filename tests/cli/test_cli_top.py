"""Does `vmsim top` show the memory of a run as it was, and animate nothing where nobody looks?"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vmsim.cli import top
from vmsim.record.result import Result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run directory of two VMs of 4 MiB, sampled each 100 us."""
    import vmsim

    work = {"kind": "uniform", "footprint": "1MiB", "accesses": 3000, "compute": 500, "writes": 0.5}
    vm = {"name": "db", "count": 2, "memory": "4MiB", "mode": "ept", "workload": work}
    scenario = {"host": {"memory": "32MiB", "cores": 2, "samples": "100us"}, "vm": [vm]}
    path = tmp_path_factory.mktemp("top") / "run"
    vmsim.run(scenario).save(path)
    return path


def test_the_last_state_is_that_of_the_table(vmsim: Any, folder: Path) -> None:
    last = [row for row in Result.load(folder).rows("memory") if not row["vm"]][-1]
    told = json.loads(vmsim("top", folder, "--json").out)
    assert told["time_us"] == last["time_us"]
    assert {name: told["host"][name] for name in last} == last
    assert sum(each["resident"] for each in told["vms"]) == told["host"]["resident"]


def test_at_shows_an_earlier_state(vmsim: Any, folder: Path) -> None:
    told = json.loads(vmsim("top", folder, "--json", "--at", "250us").out)
    assert told["time_us"] == pytest.approx(200, abs=0.001)
    assert json.loads(vmsim("top", folder, "--json", "--at", "1s").out) == json.loads(
        vmsim("top", folder, "--json").out
    )


def test_in_a_pipe_it_prints_the_last_state_at_once(vmsim: Any, folder: Path) -> None:
    said = vmsim("top", folder)
    assert said.status == 0
    assert "\x1b" not in said.out
    assert [line.split()[0] for line in said.out.splitlines()[1:4]] == ["VM", "db-0", "db-1"]
    assert "MiB free" in said.out.splitlines()[0]


def test_on_a_terminal_of_80_columns_it_replays_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(top.time, "sleep", slept.append)
    out = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None)
    found = list(top.states(Result.load(folder)))
    top._replay(found, "resident", 0.5, (found[-1].time - found[0].time) / 4, out)
    shown = out.file.getvalue()  # type: ignore[attr-defined]
    assert slept == [0.5] * 4
    assert f"{found[-1].host['time_us'] / 1000:.3f} ms" in shown
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "\n").split("\n")
    assert max(map(len, lines)) <= 80


def test_vms_are_sorted_and_pressure_is_a_share_of_the_time(folder: Path) -> None:
    found = list(top.states(Result.load(folder)))
    rows = top._rows(found[1], "resident")
    assert float(rows[0][1]) >= float(rows[1][1])
    assert all(0 <= vm["full"] <= vm["some"] <= 100 for state in found for vm in state.vms)


def test_what_it_cannot_show_is_told(vmsim: Any, file: Path, folder: Path, tmp_path: Path) -> None:
    assert "Did you mean 'resident'" in vmsim("top", folder, "--sort", "residnt").err
    vmsim("run", file, "--out", tmp_path / "run")
    said = vmsim("top", tmp_path / "run")
    assert said.status == 2
    assert "host.samples" in said.err
