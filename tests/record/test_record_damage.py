"""Is a results folder from somebody else, or from a bad disk, read as it was written or not at all?"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vmsim.base.errors import InputError
from vmsim.base.files import sha256
from vmsim.record.folder import check_folder, replacing_folder
from vmsim.record.result import Result


@pytest.fixture
def run(result: Result, tmp_path: Path) -> Path:
    result.save(tmp_path / "run")
    return tmp_path / "run"


def resealed(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Make the manifest again as a forger can: of what is there, with something else in it."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("manifest_sha256")
    files = (each for each in folder.rglob("*") if each.is_file() and each.name != "manifest.json")
    manifest["outputs"] = {each.relative_to(folder).as_posix(): sha256(each) for each in files}
    change(manifest)
    manifest["manifest_sha256"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    **{f"no {key}": lambda m, k=key: m.pop(k) for key in ("scenario", "folder", "inputs", "outcome", "outputs")},
    **{
        f"outcome without {key}": lambda m, k=key: m["outcome"].pop(k)
        for key in ("end", "frequency", "latency", "wall_seconds", "ending")
    },
    "outcome empty": lambda m: m.update(outcome={}),
    "outcome a list": lambda m: m.update(outcome=[]),
    "ending a text": lambda m: m["outcome"].update(ending="x"),
    "ending empty": lambda m: m["outcome"].update(ending={}),
    "ending's time a text": lambda m: m["outcome"].update(
        ending={"time": "x", "vm": "a", "asked": "b", "message": "c"}
    ),
    "latency a text": lambda m: m["outcome"].update(latency="x"),
    "latency of texts": lambda m: m["outcome"].update(latency=["1"]),
    "frequency 0": lambda m: m["outcome"].update(frequency=0),
    "frequency a text": lambda m: m["outcome"].update(frequency="1"),
    "end true": lambda m: m["outcome"].update(end=True),
    "end null": lambda m: m["outcome"].update(end=None),
    "scenario no TOML": lambda m: m.update(scenario="["),
    "scenario a number": lambda m: m.update(scenario=5),
    "inputs a list": lambda m: m.update(inputs=[1]),
    "inputs of numbers": lambda m: m.update(inputs={"x": 1}),
    "folder a number": lambda m: m.update(folder=5),
    "outputs a list": lambda m: m.update(outputs=[]),
    "an output above": lambda m: m["outputs"].update({"../../x": "00"}),
    "an absolute output": lambda m: m["outputs"].update({"/etc/passwd": sha256(Path("/etc/passwd"))}),
    "an output with NUL": lambda m: m["outputs"].update({"a\0b": "00"}),
    "an output's digest a number": lambda m: m["outputs"].update({"summary.csv": 5}),
    "a table not listed": lambda m: m["outputs"].pop("summary.parquet"),
    "another format": lambda m: m.update(format=["x"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_manifest_of_other_types_is_refused_in_a_sentence(run: Path, change: str) -> None:
    resealed(run, CHANGES[change])
    with pytest.raises(InputError) as error:
        Result.load(run).table("summary")
    assert len(str(error.value)) < 800


TABLE: dict[str, Callable[[pa.Table], pa.Table]] = {
    "a column less": lambda table: table.drop_columns(["mode"]),
    "texts": lambda table: table.set_column(
        table.column_names.index("accesses"), "accesses", pa.array(["x"] * table.num_rows)
    ),
    "a null": lambda table: table.set_column(
        table.column_names.index("accesses"), "accesses", pa.array([None] * table.num_rows, pa.int64())
    ),
    "fractions": lambda table: table.set_column(
        table.column_names.index("accesses"), "accesses", pa.array([0.5] * table.num_rows)
    ),
}


@pytest.mark.parametrize("change", TABLE)
def test_a_table_of_other_types_is_refused_in_a_sentence(run: Path, change: str) -> None:
    file = run / "summary.parquet"
    pq.write_table(TABLE[change](pq.read_table(file)), file)
    resealed(run)
    with pytest.raises(InputError, match=r"summary\.parquet: .*expected"):
        Result.load(run).table("summary")


@pytest.mark.parametrize("name", ["manifest.json", "summary.parquet", "summary.csv"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "nothing"])
def test_what_is_no_file_is_refused_at_once(run: Path, name: str, kind: str) -> None:
    (run / name).unlink()
    match kind:
        case "pipe":
            os.mkfifo(run / name)
        case "folder":
            (run / name).mkdir()
        case "device":
            (run / name).symlink_to("/dev/zero")
    with pytest.raises(InputError):
        Result.load(run)


def test_a_table_that_is_exchanged_after_loading_is_seen(run: Path) -> None:
    loaded = Result.load(run)
    file = run / "summary.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    with pytest.raises(InputError, match=r"summary\.parquet: damaged"):
        loaded.table("summary")


@pytest.mark.parametrize("name", ["mine.txt", "thesis.parquet", "sub/summary.csv", ".hidden"])
def test_a_forged_manifest_does_not_make_force_delete_the_users_files(run: Path, result: Result, name: str) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("years")
    digest = "0" * 64 if name.endswith(".parquet") else hashlib.sha256(b"years").hexdigest()
    resealed(run, lambda manifest: manifest["outputs"].update({name: digest}))
    with pytest.raises(InputError, match="which vmsim did not write"):
        result.save(run, force=True)
    assert (run / name).read_text() == "years"


def test_force_follows_no_link_out_of_the_folder(run: Path, result: Result, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("years")
    (run / "link").symlink_to(tmp_path / "precious")
    resealed(run)
    with pytest.raises(InputError, match="would delete link"):
        result.save(run, force=True)
    assert (tmp_path / "precious" / "file").read_text() == "years"


def test_results_put_where_a_link_leads_leave_the_link(result: Result, stopped: Result, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    result.save(tmp_path / "out")
    stopped.save(tmp_path / "out", force=True)
    assert (tmp_path / "out").is_symlink()
    assert Result.load(tmp_path / "disk").ending == stopped.ending
    assert sorted(os.listdir(tmp_path)) == ["disk", "out"]
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(InputError):
        result.save(tmp_path / "round")


def test_what_came_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def write() -> None:
        with replacing_folder(tmp_path / "out") as folder:
            (folder / "a").write_text("ours")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "b").write_text("theirs")

    with pytest.raises(InputError, match="meanwhile"):
        write()
    assert sorted(os.listdir(tmp_path)) == ["out"]
    assert os.listdir(tmp_path / "out") == ["b"]


@pytest.mark.parametrize("name", ["z" * 300, "y/" * 3000, "x\0y"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_done(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as error:
        check_folder(tmp_path / name)
    assert len(str(error.value)) < 500
    assert os.listdir(tmp_path) == []


def test_the_longest_name_and_one_that_is_no_text_will_do(result: Result, tmp_path: Path) -> None:
    for name in ("z" * 255, os.fsdecode(b"x\xff")):
        result.save(tmp_path / name)
        result.save(tmp_path / name, force=True)
        assert Result.load(tmp_path / name).summary.equals(result.summary)


@pytest.mark.parametrize("call", ["rename", "mkdir", "listdir", "scandir", "stat"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EINTR])
def test_whatever_the_system_refuses_is_a_sentence_and_leaves_nothing(
    result: Result, tmp_path: Path, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(os, call)

    def refuse(path: Any = ".", *arguments: Any, **named: Any) -> Any:
        if str(tmp_path) in str(path):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        try:
            result.save(tmp_path / "deep" / "run")
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
    if not (tmp_path / "deep" / "run").exists():
        assert [each for each in tmp_path.rglob("*") if each.is_file()] == []
