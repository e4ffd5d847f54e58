"""Does `vmsim run` say, write and refuse what it should?"""

import errno
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from vmsim.record.result import Result


def test_json_has_the_summary_rows_and_the_speed(vmsim, file: Path) -> None:
    said = vmsim("run", file, "--json")
    assert said.status == 0
    told = json.loads(said.out)
    assert [row["vm"] for row in told["vms"]] == ["db-0", "db-1"]
    assert all(row["accesses"] == 20000 and row["finished"] for row in told["vms"])
    assert told["accesses_per_second"] == pytest.approx(40000 / told["wall_seconds"])
    assert told["outcome"]["ending"] is None
    for row in told["vms"]:
        assert row["cycles_per_access"] == row["total_cycles"] / row["accesses"]
        assert row["total_cycles"] == row["finish_cycle"] - row["start_cycle"]


def test_in_a_pipe_the_tables_are_plain_and_aligned(vmsim, file: Path) -> None:
    said = vmsim("run", file)
    lines = said.out.splitlines()
    assert lines[0] == "VMs"
    assert lines[1].startswith("VM ")
    assert "\x1b" not in said.out + said.err
    assert len(lines[1]) == len(lines[2]) == len(lines[3])  # the last column ends where its heading does
    assert any(line.startswith("db-0  EPT_VIOLATION") for line in lines)
    assert said.err == ""


def test_set_changes_the_scenario_and_out_keeps_it(vmsim, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = vmsim("run", file, "--set", "vm.workload.accesses=500", "--set", "vm.count=1", "--out", out)
    assert said.status == 0
    result = Result.load(out)
    assert result.summary["accesses"].tolist() == [500]
    assert result.scenario.vm[0].count == 1
    again = vmsim("run", file, "--out", out)
    assert (again.status, again.out) == (2, "")
    assert "--force" in again.err
    assert vmsim("run", file, "--set", "vm.count=1", "--out", out, "--force").status == 0
    assert Result.load(out).summary["accesses"].tolist() == [20000]


def test_checked_runs_give_the_same_results(vmsim, file: Path) -> None:
    plain, checked = (json.loads(vmsim("run", file, "--json", *more).out) for more in ((), ("--check",)))
    assert checked["vms"] == plain["vms"]


def test_the_same_scenario_gives_the_same_bytes(vmsim, file: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert vmsim("run", file, "--out", tmp_path / name).status == 0
    for path in (tmp_path / "one").iterdir():
        if path.name != "manifest.json":
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_a_host_out_of_memory_is_told_and_the_tables_are_kept(vmsim, file: Path, tmp_path: Path) -> None:
    settings = ("--set", "host.memory=16MiB", "--set", "vm.memory=64MiB", "--set", "vm.workload.footprint=48MiB")
    said = vmsim("run", file, *settings, "--json", "--out", tmp_path / "run")
    assert said.status == 3
    ending = json.loads(said.out)["outcome"]["ending"]
    assert ending["vm"] in ("db-0", "db-1")
    assert ending["asked"]
    assert ending["message"] in said.err
    saved = Result.load(tmp_path / "run")
    assert saved.ending is not None
    assert saved.summary["accesses"].sum() < 40000
    assert not saved.summary["finished"].all()


def test_bad_input_is_one_paragraph_that_says_where(vmsim, file: Path, tmp_path: Path) -> None:
    good = file.read_text()
    bad = {
        "seed = 1\nhost = = 2": "scenario.toml:2: ",
        good.replace("cores", "corse"): "cores",
        good.replace('"256MiB"', '"256Mib"'): "256Mib",
        good.replace("min = 16", "min = 1600"): "pool.min",
        good.replace('"ept"', '"npt"'): "AMD",
        good.replace('kind = "uniform"', 'kind = "trace"\npath = "nowhere.vmtrace"').split("footprint")[0]: "nowhere",
        good.replace('"8MiB"', '"64MiB"'): "MiB",
    }
    for text, told in bad.items():
        file.write_text(text)
        said = vmsim("run", file, "--out", tmp_path / "run")
        assert (said.status, said.out) == (2, ""), text
        assert told in said.err
        assert "Traceback" not in said.err
        assert not (tmp_path / "run").exists()


def test_a_mistyped_setting_gets_the_nearest_key(vmsim, file: Path) -> None:
    said = vmsim("run", file, "--set", "host.pool.mni=3")
    assert said.status == 2
    assert "'min'" in said.err


def test_a_place_that_cannot_be_written_is_refused_before_the_simulation(
    vmsim, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vmsim.api.run", None)  # it must not come to that
    assert "not a folder" in vmsim("run", file, "--out", file / "run").err
    said = vmsim("run", file, "--out", file)
    assert said.status == 2
    assert "this is a file" in said.err


def test_a_full_disk_is_told_and_leaves_nothing(
    vmsim, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    said = vmsim("run", file, "--out", tmp_path / "run")
    assert said.status == 2
    assert "No space left on device" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["scenario.toml"]


def test_alone_says_how_much_slower_each_vm_is_with_the_others(vmsim, file: Path) -> None:
    """Two equal VMs share one core: each takes about twice its time, and that is fair."""
    said = vmsim("run", file, "--alone", "--json")
    told = json.loads(said.out)
    assert [row["vm"] for row in told["slowdown"]] == ["db-0", "db-1"]
    for row, vm in zip(told["slowdown"], told["vms"], strict=True):
        assert row["together_cycles_per_access"] == (vm["finish_cycle"] - vm["start_cycle"]) / vm["accesses"]
        assert 1.7 < row["slowdown"] < 2.3
    assert 0.95 < told["fairness"]["least_over_most"] <= told["fairness"]["jain"] <= 1
    screen = vmsim("run", file, "--alone").out
    assert "slowdown" in screen
    assert "Jain's index" in screen
    assert "slowdown" not in vmsim("run", file).out


def test_how_long_faults_took_is_said_by_kind(vmsim, file: Path) -> None:
    """The percentiles are those of the table; with a swap device the pages that come back are a kind of their own."""
    told = json.loads(vmsim("run", file, "--json").out)
    for row, vm in zip(told["latency"], told["vms"], strict=True):
        assert (row["vm"], row["kind"]) == (vm["vm"], "fault")
        assert (row["p50"], row["p99"]) == (vm["fault_p50_cycles"], vm["fault_p99_cycles"])
        assert row["p99"] <= row["p99_9"]
        assert row["count"] == vm["exits"]
    settings = ("--set", "host.memory=14MiB", "--set", "host.swap.device=nvme", "--set", "host.pool.max=32")
    swapped = json.loads(vmsim("run", file, *settings, "--set", "host.pool.batch=16", "--json").out)["latency"]
    assert {row["kind"] for row in swapped} == {"fault", "swap-in"}
    assert "p99.9" in vmsim("run", file).out
