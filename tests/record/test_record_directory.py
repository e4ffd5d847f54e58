"""Is a run directory complete, the same every time, and checked when it is read?"""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.forks import ROOT, forked
from vmsim.base.errors import InputError
from vmsim.record import directory
from vmsim.record.comparison import Comparison
from vmsim.record.folder import check_folder
from vmsim.record.outcome import Outcome
from vmsim.record.result import Result
from vmsim.record.tables import TABLES
from vmsim.scenario import Scenario
from vmsim.sweeps.parts import FORMAT


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_saved_is_what_is_loaded(result: Result, stopped: Result, tmp_path: Path) -> None:
    for number, saved in enumerate((result, stopped)):
        saved.save(tmp_path / f"run{number}")
        loaded = Result.load(tmp_path / f"run{number}")
        for name in TABLES:
            pd.testing.assert_frame_equal(loaded.table(name), saved.table(name))
        assert loaded.scenario == saved.scenario
        assert loaded.facts == saved.facts
        assert loaded.inputs == saved.inputs


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no list of a process's threads")
def test_reading_starts_no_threads(result: Result, tmp_path: Path) -> None:
    """Arrow's pools were torn down while they started, where the process ended at once: it ended by SIGABRT."""
    result.save(tmp_path / "run")
    code = f"""
import os, pandas, pyarrow
from vmsim.record.result import Result
from vmsim.record.tables import TABLES
before = len(os.listdir("/proc/self/task"))
run = Result.load({str(tmp_path / "run")!r})
for name in TABLES:
    run.table(name)
print(len(os.listdir("/proc/self/task")) - before)
"""
    done = forked(code, ROOT, {**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


def test_only_the_manifest_differs_between_two_runs(
    scenario: Scenario, make_outcome: Callable[..., Outcome], tmp_path: Path
) -> None:
    for name, seconds in (("one", 0.5), ("two", 7.25)):
        Result(scenario, make_outcome(wall_seconds=seconds)).save(tmp_path / name)
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert one.keys() == two.keys() == {"manifest.json", "summary.csv", *(f"{name}.parquet" for name in TABLES)}
    assert {name for name in one if one[name] != two[name]} == {"manifest.json"}


def test_the_manifest_says_what_made_the_results(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert Scenario.from_toml(manifest["scenario"]).canonical() == manifest["canonical"]
    assert manifest["seed"] == 7
    assert manifest["inputs"] == {"traces/x": "00"}
    assert {"vmsim", "python", "numpy", "numba"} <= manifest["versions"].keys()
    assert len(manifest["jit_sources_sha256"]) == 64


def test_no_table_carries_the_libraries_notes_about_themselves(result: Result, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    result.save(tmp_path / "run")
    for name in TABLES:
        assert not pq.read_schema(tmp_path / "run" / f"{name}.parquet").metadata


@pytest.mark.parametrize("name", ["summary.csv", *(f"{name}.parquet" for name in TABLES)])
def test_a_damaged_or_missing_file_is_named(name: str, result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "run")
    file = tmp_path / "run" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=f"{name}: damaged"):
        Result.load(tmp_path / "run")
    file.unlink()
    with pytest.raises(InputError, match=f"{name}: missing"):
        Result.load(tmp_path / "run")


def test_no_flipped_bit_of_the_manifest_goes_unnoticed(result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "run")
    file = tmp_path / "run" / "manifest.json"
    intact = file.read_bytes()
    for place in range(0, len(intact) - 1, 97):
        file.write_bytes(intact[:place] + bytes([intact[place] ^ 1]) + intact[place + 1 :])
        try:
            loaded = Result.load(tmp_path / "run")
        except InputError as error:
            assert "manifest.json" in str(error)  # noqa: PT017  (a flipped space between two keys changes nothing)
        else:
            assert json.loads(file.read_bytes()) == json.loads(intact), loaded


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: there is no such folder\."):
        Result.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"not a folder of vmsim results"):
        Result.load(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": FORMAT, "results": {}}))
    with pytest.raises(InputError, match=r"the store of a sweep; expected the folder of a run"):
        Result.load(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match=r"manifest\.json: damaged"):
        Result.load(tmp_path)


def test_results_are_replaced_only_by_force(result: Result, stopped: Result, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()  # an empty folder will do
    result.save(tmp_path / "run")
    with pytest.raises(InputError, match="--force"):
        stopped.save(tmp_path / "run")
    assert Result.load(tmp_path / "run").ending is None
    stopped.save(tmp_path / "run", force=True)
    assert Result.load(tmp_path / "run").ending == stopped.ending
    assert os.listdir(tmp_path) == ["run"]


def test_force_never_deletes_what_vmsim_did_not_write(result: Result, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years")
    with pytest.raises(InputError, match="vmsim did not write it"):
        result.save(tmp_path / "thesis", force=True)
    result.save(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"would delete notes\.txt"):
        result.save(tmp_path / "run", force=True)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_file_in_the_place_of_a_folder_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / "file" / "deep" / "run"):
        with pytest.raises(InputError, match="file"):
            check_folder(path)


def test_a_read_only_place_is_refused(result: Result) -> None:
    with pytest.raises(InputError, match="/proc/run: cannot be written"):
        result.save("/proc/run")


@pytest.mark.parametrize(("module", "name"), [(directory.pq, "write_table"), (os, "rename")])
def test_a_full_disk_leaves_nothing_behind(
    module: Any, name: str, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, name, full)
    with pytest.raises(InputError, match="No space left on device"):
        result.save(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_failed_replacement_keeps_the_old_results(
    result: Result, stopped: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result.save(tmp_path / "run")
    before = files(tmp_path)
    rename = os.rename

    def only_away(source: Path, target: Path) -> None:
        if str(source).endswith(".tmp"):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", only_away)
    with pytest.raises(InputError):
        stopped.save(tmp_path / "run", force=True)
    assert files(tmp_path) == before


def test_a_comparison_is_a_folder_of_runs(result: Result, tmp_path: Path) -> None:
    comparison = Comparison({"native": result, "ept": result}, ["a note"])
    comparison.save(tmp_path / "both")
    assert Result.load(tmp_path / "both" / "ept").summary.equals(result.summary)
    assert json.loads((tmp_path / "both" / "manifest.json").read_text())["notes"] == ["a note"]
    assert len(pd.read_csv(tmp_path / "both" / "summary.csv")) == 4
    comparison.save(tmp_path / "both", force=True)
    assert comparison.cycles["mode"].unique().tolist() == ["native", "ept"]
