"""Is whatever the operating system refuses, and whatever is in the way, said in a sentence, with nothing lost?"""

# ruff: noqa: F811  (fixtures)
from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.sweeps import fake
from tests.sweeps.damage import PART, SWEEP, VERBS, in_order, made, say, small_parts, store  # noqa: F401
from vmsim.base.errors import InputError
from vmsim.sweeps import read_results, run_sweep
from vmsim.sweeps.lock import locked
from vmsim.sweeps.merging import contents, export

# What the operating system may refuse

CALLS = ("fsync", "unlink", "replace", "rename", "pread", "ftruncate", "listdir", "write", "open", "mkdir", "stat")
ERRORS = (errno.EIO, errno.EROFS, errno.ENOSPC, errno.EINTR, errno.EACCES)


@pytest.mark.parametrize("call", [*CALLS, "flock"])
@pytest.mark.parametrize(
    "number", [errno.EIO, *(pytest.param(each, marks=pytest.mark.slow) for each in (*ERRORS[1:], errno.ENOLCK))]
)
def test_whatever_the_system_refuses_is_said_in_a_sentence_and_nothing_is_lost(
    made: dict[str, Path], tmp_path: Path, call: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = read_results(made["begun"])
    module = fcntl if call == "flock" else os
    real = getattr(module, call)
    for verb in ("sweep", "read_results", "merge", "export"):
        for after in (0, 3):
            folder = tmp_path / f"{verb}-{after}"
            shutil.copytree(made["begun"], folder)
            left = [after]

            def refuse(*arguments: Any, **named: Any) -> Any:
                ours = not arguments or not isinstance(arguments[0], str | Path) or str(tmp_path) in str(arguments[0])
                left[0] -= ours  # noqa: B023
                if ours and left[0] < 0:  # noqa: B023
                    raise OSError(number, os.strerror(number))
                return real(*arguments, **named)

            with monkeypatch.context() as patch:
                patch.setattr(module, call, refuse)
                try:
                    VERBS[verb](folder)
                except InputError as error:
                    assert "\n" not in str(error)  # noqa: PT017
                    assert "Traceback" not in str(error)  # noqa: PT017
            found = read_results(folder)
            pd.testing.assert_frame_equal(in_order(found[found["point"].isin(truth["point"])]), in_order(truth))
            shutil.rmtree(tmp_path / "merged", ignore_errors=True)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".") and call not in ("unlink", "rename")]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_one_is_told_and_may_go_on_without(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(InputError, match=r"has no locks here .*--no-lock"):
        run_sweep(SWEEP, tmp_path / "store", jobs=1, work=fake.work)
    assert os.listdir(tmp_path) == []
    assert run_sweep(SWEEP, tmp_path / "store", jobs=1, work=fake.work, lock=False).done == 20
    with locked(tmp_path / "lock", lock=False):
        assert os.listdir(tmp_path) == ["store"]


@pytest.mark.parametrize("name", ["q" * 300, "q/" * 3000, "z" * 255, "x\0y"])
def test_a_name_that_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    if name == "z" * 255:  # the longest that there can be
        assert run_sweep(SWEEP, tmp_path / name, jobs=1, work=fake.work).done == 20
        assert contents(tmp_path / name).points == 20
        return
    for verb in VERBS.values():
        with pytest.raises(InputError) as error:
            verb(tmp_path / name)
        assert len(str(error.value)) < 600
    assert os.listdir(tmp_path) == []


def test_a_name_need_not_be_text(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"x\xff")
    folder.mkdir()
    run_sweep(SWEEP, folder / "store", jobs=1, work=fake.work)
    code = "from vmsim.cli import main; main()"
    for verb, status, told in (("ls", 0, b"x\\udcff/store"), ("verify", 0, b"x\\udcff/store: whole"), ("no", 2, b"")):
        command = [sys.executable, "-c", code, "results", verb, folder / "store"]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == status, done.stderr
        assert told in done.stdout
        assert b"Traceback" not in done.stderr


# Files that are there, and spreadsheets


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_export_replaces_a_file_only_by_force(store: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"precious{suffix}"
    file.write_text("years")
    assert say("results", "export", store, file) == 2
    assert file.read_text() == "years"
    assert say("results", "export", store, file, "--force") == 0
    assert file.read_bytes() != b"years"


def test_texts_that_spreadsheets_take_for_formulas_can_be_made_plain(tmp_path: Path) -> None:
    starts = ("=", "+", "-", "@", "\t", "=1+")

    def named(batch: Any) -> Any:
        return [
            done._replace(rows=[[f"{starts[done.place]}{row[0]}", *row[1:]] for row in done.rows])
            for done in fake.work(batch)
        ]

    run_sweep(fake.sweep(6), tmp_path / "store", jobs=1, work=named)
    export(tmp_path / "store", tmp_path / "as it is.csv")
    export(tmp_path / "store", tmp_path / "plain.csv", formulas=False)
    vms = [pd.read_csv(tmp_path / f"{name}.csv")["vm"].to_list() for name in ("as it is", "plain")]
    assert vms[1] == [f"'{text}" for text in vms[0]]
    assert vms[0][0].startswith("=")
    numbers = [pd.read_csv(tmp_path / f"{name}.csv").select_dtypes("number") for name in ("as it is", "plain")]
    pd.testing.assert_frame_equal(*numbers)
