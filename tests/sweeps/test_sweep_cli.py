"""Does the command line do what its help says, for people, pipes and programs?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vmsim
from tests.sweeps import fake
from vmsim.cli import main, sweep_screen
from vmsim.scenario import Scenario
from vmsim.sweeps import Sweep, read_results, run_sweep
from vmsim.sweeps.points import identity_of

SWEEP = """
base = "base.toml"
replicates = 2
[names]
pool_min = "host.pool.min"
[axes]
pool_min = [4, 16]
"vm.mode" = ["native", "ept"]
"""
SCENARIO = """
seed = 3
[host]
cpu = "skylake-x"
memory = "64MiB"
pool = { max = 64, batch = 16 }
[[vm]]
name = "vm"
count = 2
memory = "4MiB"
mode = "ept"
workload = { kind = "uniform", footprint = "256KiB", accesses = 2000 }
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "base.toml").write_text(SCENARIO)
    (tmp_path / "sweep.toml").write_text(SWEEP)
    return tmp_path / "sweep.toml"


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        assert isinstance(leaving.value.code, int)
        return leaving.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def store(tmp_path: Path) -> Path:
    run_sweep(fake.sweep(5), tmp_path / "store", jobs=1, work=lambda batch: fake.work(batch, fail=(103,)))
    return tmp_path / "store"


def test_a_real_sweep_says_what_single_runs_say(file: Path, say: Run) -> None:
    status, out, err = say("sweep", file, "--jobs", 1)
    assert status == 0
    assert "8 points: 0 were there, 8 done" in out
    assert "8 points: 0 done" in err
    table = read_results(file.with_suffix(".results"))
    assert len(table) == 16
    for point in list(Sweep.load(file).points())[:3]:
        assert identity_of(point.scenario) == point.identity
        alone = vmsim.run(point.scenario).summary
        rows = table[table["point"] == point.identity].reset_index(drop=True)
        assert rows[list(alone.columns)].equals(alone)
    status, out, _ = say("sweep", file, "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["planned", "finished"]
    assert events[0] | {"points": 8, "recorded": 8, "pending": 0} == events[0]
    status, out, _ = say("sweep", file, "--dry-run")
    assert "8 points, 8 of them recorded" in out


@pytest.mark.slow
def test_processes_make_the_same_bytes_of_real_points_and_python_the_same_table(file: Path, tmp_path: Path) -> None:
    sweep = Sweep.load(file)
    run_sweep(sweep, tmp_path / "here", jobs=1)
    run_sweep(sweep, tmp_path / "two", jobs=2)
    assert fake.contents(tmp_path / "here") == fake.contents(tmp_path / "two")
    axes = {"pool_min": [4, 16], "vm.mode": ["native", "ept"]}
    base = Scenario.load(file.parent / "base.toml")
    table = vmsim.sweep(base, axes, replicates=2, jobs=1, names={"pool_min": "host.pool.min"})
    assert table.equals(read_results(tmp_path / "here"))
    less = vmsim.sweep(
        base, {"vm.mode": ["ept"], "pool_min": [16]}, out=None, jobs=1, names={"pool_min": "host.pool.min"}
    )
    assert set(less["point"]) < set(table["point"])


def test_python_returns_only_the_points_asked_for_and_tells_of_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vmsim.sweeps import driver

    def run(*arguments: Any, **named: Any) -> Any:
        return run_sweep(*arguments, **named, work=lambda batch: fake.work(batch, fail=(103,)))

    monkeypatch.setattr(driver, "run_sweep", run)
    base = fake.sweep(1).scenario
    key = "vm.workload.accesses"
    vmsim.sweep(base, {key: [100, 101, 102]}, out=tmp_path, jobs=1)
    table = vmsim.sweep(base, {key: [105, 101]}, out=tmp_path, jobs=1)
    assert table[key].to_list() == [105, 105, 101, 101]
    with pytest.raises(RuntimeError, match=r"1 points? failed(.|\n)*ValueError: 103"):
        vmsim.sweep(base, {key: [101, 103]}, out=tmp_path, jobs=1)


def test_a_rehearsal_prints_the_points_and_a_time_and_writes_nothing(file: Path, say: Run) -> None:
    status, out, _ = say("sweep", file, "--dry-run", "--jobs", 2)
    assert status == 0
    assert "8 points, 0 of them recorded" in out
    assert "About 1 s with 2 processes (from a rehearsal)" in out
    assert [line.split() for line in out.splitlines()[2:4]] == [["4", "native", "0"], ["4", "native", "1"]]
    assert sorted(os.listdir(file.parent)) == ["base.toml", "sweep.toml"]
    status, out, _ = say("sweep", file, "--dry-run", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["point"] for event in events[:-1]] == [point.identity for point in Sweep.load(file).points()]
    assert events[-1]["pending"] == 8
    assert events[-1]["seconds"] > 0


def test_failures_are_exit_code_1_and_can_be_listed(store: Path, say: Run) -> None:
    status, out, _ = say("results", "ls", store)
    assert status == 0
    assert out.splitlines()[2].split() == [str(store), "whole", "4", "8", "1"]
    status, out, _ = say("results", "ls", "--failures", store)
    assert "ValueError: 103" in out
    status, out, _ = say("results", "ls", "--json", store)
    assert json.loads(out)[str(store)]["failures"] == 1


def test_results_are_merged_exported_and_verified(store: Path, tmp_path: Path, say: Run) -> None:
    assert say("results", "merge", store, "--out", tmp_path / "all")[0] == 0
    assert say("results", "export", store, tmp_path / "all.csv", "--json")[0] == 0
    assert (tmp_path / "all.csv").read_text().count("\n") == 9
    assert say("results", "verify", store)[:2] == (0, f"{store}: whole.\n")
    (store / "manifest.json").write_text("{}")
    status, out, _ = say("results", "verify", store, "--json")
    assert status == 1
    assert json.loads(out)["problems"]
    assert say("results", "verify", "--repair", store)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sweep", "nowhere.toml"], "no such sweep"),
        (["results", "ls", "nowhere"], "not a folder of sweep results"),
        (["results", "export", "nowhere", "x.csv"], "not a folder of sweep results"),
    ],
)
def test_what_cannot_be_used_is_exit_code_2(arguments: list[str], told: str, say: Run) -> None:
    status, _, err = say(*arguments)
    assert status == 2
    assert told in err


def test_the_schema_of_sweeps_is_printed(say: Run) -> None:
    assert json.loads(say("schema", "sweep", "--json")[1]) == Sweep.json_schema()


def test_ctrl_c_is_exit_code_130_and_the_same_command_goes_on(file: Path, say: Run) -> None:
    text = SCENARIO.replace("accesses = 2000", "accesses = 2000000")
    (file.parent / "base.toml").write_text(text)
    command = [sys.executable, "-c", "from vmsim.cli import main; main()", "sweep", str(file), "--jobs", "1", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "done":
                process.send_signal(signal.SIGINT)
                break
        rest = [json.loads(line)["event"] for line in process.stdout]
        assert process.wait() == 130, process.stderr.read()
        assert rest[-1] == "interrupted"
        assert "Traceback" not in process.stderr.read()
    assert 1 <= read_results(file.with_suffix(".results"))["point"].nunique() < 8


def test_the_panel_shows_counts_rate_and_the_slowest() -> None:
    from rich.console import Console

    console = Console(width=100, record=True, force_terminal=True, file=open(os.devnull, "w"))  # noqa: SIM115
    panel = sweep_screen._Panel(console)
    panel({"event": "planned", "points": 1000, "recorded": 200, "pending": 800})
    panel({"event": "started", "workers": 2})
    panel({"event": "done", "point": "a" * 64, "values": {"size": "1MiB"}, "seconds": 0.5})
    panel({"event": "done", "point": "b" * 64, "values": {"size": "9MiB"}, "seconds": 7.25})
    panel({"event": "failed", "point": "c" * 64, "values": {"size": "3MiB"}, "seconds": 0.1, "error": "ValueError: x"})
    console.print(*panel.lines(), sep="\n")
    text = console.export_text()
    assert "203 of 1,000" in text
    assert "2 done (200 were there), 1 failed, 797 left" in text
    assert "slowest: 7.25 s: size = 9MiB" in text
    assert "failed: size = 3MiB: ValueError: x" in text
    assert "points/s" in text
    panel({"event": "planned", "points": 30, "recorded": 0, "pending": 30})  # the next sweep of an experiment
    console.print(*panel.lines(), sep="\n")
    text = console.export_text()
    assert "0 of 30" in text
    assert "0 done, 0 failed, 30 left" in text


def test_a_shard_has_a_folder_of_its_own_and_is_estimated_alone(file: Path, say: Run) -> None:
    status, out, err = say("sweep", file, "--shard", "2/8", "--dry-run")
    assert (status, "1 points, 0 of them recorded" in out) == (0, True), err
    assert say("sweep", file, "--shard", "2/8", "--jobs", 1)[0] == 0
    assert len(read_results(file.with_suffix(".2-of-8.results"))) == 2
    status, _, err = say("sweep", file, "--shard", "0/8")
    assert (status, "counted from 1" in err) == (2, True)
