"""Is every damage to a store seen by everything that reads it, and is nothing wrong ever taken for right?"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sweeps import fake
from vmsim.cli import main
from vmsim.errors import InputError
from vmsim.sweeps import merging, read_failures, read_results, run_sweep
from vmsim.sweeps.estimate import missing_points
from vmsim.sweeps.lock import locked
from vmsim.sweeps.merging import contents, export, merge
from vmsim.sweeps.repair import repair, verify
from vmsim.sweeps.store import Store

PART = "results/part-0001-000000.parquet"
SWEEP = fake.sweep(20)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A store that is whole, and one of a sweep that was interrupted."""
    folder = tmp_path_factory.mktemp("stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "part", 8)
        run_sweep(SWEEP, folder / "whole", jobs=1, work=lambda batch: fake.work(batch, fail=(103,)))
        seen: list[int] = []

        def stop(event: dict[str, Any]) -> None:
            seen.append(event["event"] == "done")
            if sum(seen) == 13:
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError):
            run_sweep(SWEEP, folder / "begun", jobs=1, work=fake.work, listener=stop)
        yield {name: folder / name for name in ("whole", "begun")}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "part", 8)


@pytest.fixture
def store(made: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(made["whole"], tmp_path / "store")


def say(*arguments: object) -> int:
    """Run the command line; anything but an exit code fails the test."""
    with pytest.raises(SystemExit) as leaving:
        main([str(argument) for argument in arguments])
    assert isinstance(leaving.value.code, int)
    return leaving.value.code


def sweep_again(folder: Path) -> object:
    return run_sweep(SWEEP, folder, jobs=1, work=fake.work)


VERBS: dict[str, Callable[[Path], object]] = {
    "read_results": read_results,
    "read_failures": read_failures,
    "ls": contents,
    "export": lambda folder: export(folder, folder.parent / "out.csv", force=True),
    "merge": lambda folder: merge([folder], folder.parent / "merged"),
    "dry run": lambda folder: missing_points(SWEEP, folder),
    "sweep": sweep_again,
}


# What is wrong in silence


def test_no_flipped_bit_of_a_part_is_taken_for_a_number(store: Path) -> None:
    path = store / PART
    whole = path.read_bytes()
    before = {name: (store / name).read_bytes() for name in ("manifest.json",)}
    chance = random.Random(1)
    for _ in range(150):
        place = chance.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"part-0001-000000\.parquet: damaged or exchanged"):
            read_results(store)
    for name, verb in VERBS.items():
        with pytest.raises(InputError, match=r"part-0001-000000\.parquet: damaged or exchanged"):
            verb(store)
        assert (store / "manifest.json").read_bytes() == before["manifest.json"], name
    assert not (store.parent / "merged").exists()


def test_parts_that_changed_places_and_parts_of_another_store_are_seen(store: Path, tmp_path: Path) -> None:
    results = store / "results"
    first, second = results / "part-0001-000000.parquet", results / "part-0001-000001.parquet"
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    for verb in VERBS.values():
        with pytest.raises(InputError, match="damaged or exchanged"):
            verb(store)
    second.write_bytes(two)
    for n, row in enumerate(pq.read_table(pa.BufferReader(one))["accesses"].to_pylist()[:1]):
        assert row > n  # a number that could be another one
    run_sweep(SWEEP, tmp_path / "other", jobs=1, work=other_numbers)
    first.write_bytes((tmp_path / "other" / PART).read_bytes())
    for verb in VERBS.values():
        with pytest.raises(InputError, match="damaged or exchanged"):
            verb(store)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["point", "vm"]).reset_index(drop=True)


def other_numbers(batch: Any) -> Any:
    return [done._replace(rows=[[*row[:-1], row[-1] + 1] for row in done.rows]) for done in fake.work(batch)]


def test_a_part_that_only_lies_there_is_not_taken_in_and_one_that_is_gone_is_missed(store: Path) -> None:
    shutil.copy(store / PART, store / "results" / "part-0002-000000.parquet")
    for verb in VERBS.values():
        with pytest.raises(InputError, match=r"part-0002-000000\.parquet: not in manifest\.json"):
            verb(store)
    (store / "results" / "part-0002-000000.parquet").unlink()
    (store / PART).unlink()
    for verb in VERBS.values():
        with pytest.raises(InputError, match=r"part-0001-000000\.parquet: missing"):
            verb(store)


def test_no_flipped_bit_of_the_manifest_is_believed(store: Path) -> None:
    path = store / "manifest.json"
    whole = path.read_bytes()
    truth = read_results(store)
    for place in range(0, len(whole) - 1, 23):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = read_results(store)
        except InputError as error:
            assert "manifest.json" in str(error)  # noqa: PT017  (a flipped blank changes nothing)
        else:
            pd.testing.assert_frame_equal(found, truth)


def test_repairing_sets_aside_what_is_damaged_and_the_next_sweep_makes_it_again(store: Path) -> None:
    truth = read_results(store).sort_values(["point", "vm"]).reset_index(drop=True)
    path = store / PART
    path.write_bytes(path.read_bytes()[:-30] + bytes(30))
    done = repair(store)
    assert any("set aside as _part-0001-000000.parquet.damaged" in told for told in done)
    assert verify(store) == []
    assert not path.exists()
    assert run_sweep(SWEEP, store, jobs=1, work=fake.work).done == 8
    again = read_results(store).sort_values(["point", "vm"]).reset_index(drop=True)
    kept = again[again["point"].isin(truth["point"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, truth)
    assert pd.read_parquet(store / "results")["point"].nunique() == 20  # as it is, whatever was set aside


def test_a_sweep_that_stopped_before_it_listed_a_part_has_its_points_in_the_journal(
    made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vmsim.sweeps import manifest

    def crash(*_: object) -> None:
        raise RuntimeError("stop")

    monkeypatch.setattr(manifest.Manifest, "write", crash)
    with pytest.raises(RuntimeError):
        run_sweep(SWEEP, tmp_path / "store", jobs=1, work=fake.work)
    monkeypatch.undo()
    monkeypatch.setattr(Store, "part", 8)
    parts = [*(tmp_path / "store" / "results").glob("part-*")]
    assert len(parts) == 1
    assert not (tmp_path / "store" / "manifest.json").exists()
    kept = read_results(tmp_path / "store")["point"].nunique()
    assert kept > 0
    assert verify(tmp_path / "store") == []
    assert run_sweep(SWEEP, tmp_path / "store", jobs=1, work=fake.work).recorded == kept
    assert verify(tmp_path / "store") == []


# Merging


def test_two_merges_into_one_folder_cannot_both_succeed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.finish

    def meanwhile(self: Store) -> None:
        real(self)
        monkeypatch.setattr(Store, "finish", real)
        (tmp_path / "elsewhere").mkdir()
        merge([store], tmp_path / "elsewhere" / "all")
        os.rename(tmp_path / "elsewhere" / "all", tmp_path / "all")
        (tmp_path / "elsewhere").rmdir()

    truth = read_results(store)
    monkeypatch.setattr(Store, "finish", meanwhile)
    with pytest.raises(InputError, match="meanwhile"):
        merge([store, store], tmp_path / "all")
    pd.testing.assert_frame_equal(read_results(tmp_path / "all"), truth)
    assert verify(tmp_path / "all") == []
    assert sorted(os.listdir(tmp_path)) == ["all", "store"]


@pytest.mark.parametrize("at", ["parts", "manifest", "rename"])
def test_a_merge_that_is_interrupted_leaves_nothing(
    store: Path, tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    target = {"parts": (merging, "encoded"), "manifest": (Store, "finish"), "rename": (os, "rename")}[at]
    monkeypatch.setattr(*target, stop)
    with pytest.raises(KeyboardInterrupt):
        merge([store], tmp_path / "new" / "all")
    assert os.listdir(tmp_path) == ["store"]


# The journal, asked by those who only look


def test_a_dry_run_knows_what_an_interrupted_sweep_has(made: dict[str, Path], tmp_path: Path) -> None:
    plan = missing_points(SWEEP, made["begun"])
    kept = read_results(made["begun"])["point"].nunique()
    assert 13 <= kept < 20
    assert (plan.total, len(plan)) == (20, 20 - kept)
    assert (made["begun"] / "journal").exists()


def test_what_is_interrupted_says_what_is_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import signal

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "done" and not sent:
            sent.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    sent: list[int] = []
    summary = run_sweep(SWEEP, tmp_path / "s", jobs=1, work=fake.work, listener=stop)
    assert summary.interrupted
    assert summary.kept(tmp_path / "s").startswith(f"{summary.done} of 20 points are kept in {tmp_path / 's'}; ")


# Other people's files, by verb


def frame(place: int, record: Any) -> bytes:
    body = record if isinstance(record, bytes) else json.dumps(record).encode()
    rest = struct.pack("<q", place) + body
    return struct.pack("<IIq", len(body), zlib.crc32(rest), place) + body


HEADER = {
    "generation": 2,
    "plan": "x",
    "points": 40,
    "part": 8,
    "columns": {"point": "str", "replicate": "int64", "seed": "int64"},
    "facts": {},
}
ROW = ["00" * 32, 0, 1]
DEEP = b"[" * 100_000 + b"]" * 100_000
JOURNALS: dict[str, bytes] = {
    "empty": b"",
    "4 billion points": frame(-1, HEADER | {"points": (1 << 32) - 1, "part": 1 << 30}) + frame(9, [ROW, [[]]]),
    "parts of one": frame(-1, HEADER | {"points": (1 << 32) - 1, "part": 1}) + frame(1 << 31, [ROW, [[]]]),
    "part 2**62": frame(-1, HEADER | {"part": 1 << 62}),
    "deep header": frame(-1, b'{"x":' + DEEP + b"}"),
    "deep record": frame(-1, HEADER) + frame(0, DEEP),
    "columns of numbers": frame(-1, HEADER | {"columns": HEADER["columns"] | {"x": 5}}) + frame(0, [ROW, [[1]]]),  # type: ignore[operator]
    "no columns": frame(-1, HEADER | {"columns": {}}) + frame(0, [[], [[]]]),
    "a text": frame(-1, HEADER) + frame(0, "x"),
    "an object": frame(-1, HEADER) + frame(0, {"a": 1}),
    "ragged rows": frame(-1, HEADER) + frame(0, [ROW, [[1], [1, 2]]]),
    "no rows": frame(-1, HEADER) + frame(0, [ROW, [7]]),
    "not JSON": frame(-1, HEADER) + frame(0, b"\xff"),
    "place 2**62": frame(-1, HEADER) + frame(1 << 62, [ROW, [[]]]),
    "generation true": frame(-1, HEADER | {"generation": True}),
    "no digest": frame(-1, HEADER) + frame(0, [["x", 0, 1], [[]]]),
    "NaN": frame(-1, json.dumps(HEADER).replace("40", "NaN").encode()),
    "infinity": frame(-1, json.dumps(HEADER).replace("40", "1e400").encode()),
}
MANIFESTS: dict[str, Any] = {
    "empty": b"",
    "a list": [],
    "deep": DEEP,
    "not UTF-8": b"\xff\xfe",
    "results a list": {"format": "vmsim sweep 1", "results": [], "failures": {}},
    "results missing": {"format": "vmsim sweep 1", "failures": {}},
    "path": {"format": "vmsim sweep 1", "results": {"../../x": {"sha256": "", "points": 1, "rows": 1}}, "failures": {}},
    "null": {"format": "vmsim sweep 1", "results": {"part-0001-000000.parquet": None}, "failures": {}},
    "numbers": {
        "format": "vmsim sweep 1",
        "results": {"part-0001-000000.parquet": {"sha256": 5, "points": 1, "rows": 1}},
        "failures": {},
    },
    "more keys": {
        "format": "vmsim sweep 1",
        "results": {"part-0001-000000.parquet": {"sha256": "", "points": 1, "rows": 1, "x": 1}},
        "failures": {},
    },
    "another format": {"format": 7, "results": {}, "failures": {}},
}


def sealed(manifest: Any) -> bytes:
    if isinstance(manifest, dict):
        text = json.dumps(manifest, sort_keys=True)
        manifest = manifest | {"manifest_sha256": hashlib.sha256(text.encode()).hexdigest()}
    return manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()


def replaced(store: Path, change: Callable[[pa.Table], pa.Table], facts: dict[str, Any] | bytes | None) -> None:
    """Put another part in the place of the first, and have the manifest say that it is right."""
    path = store / PART
    table = pq.read_table(pa.BufferReader(path.read_bytes()))
    metadata = json.loads(table.schema.metadata[b"vmsim"])
    text = facts if isinstance(facts, bytes) else json.dumps(metadata | (facts or {})).encode()
    pq.write_table(change(table).replace_schema_metadata({b"vmsim": text}), path)
    manifest = json.loads((store / "manifest.json").read_bytes())
    del manifest["manifest_sha256"]
    manifest["results"][path.name]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (store / "manifest.json").write_bytes(sealed(manifest))


def column(name: str, values: Callable[[int], pa.Array]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index(name), name, values(table.num_rows))


PARTS: dict[str, tuple[Callable[[pa.Table], pa.Table], dict[str, Any] | bytes | None]] = {
    "a point that is a path": (column("point", lambda rows: pa.array(["../../x"] * rows)), None),
    "no point": (column("point", lambda rows: pa.array([None] * rows, pa.string())), None),
    "deep facts": (lambda table: table, b"[" * 100_000),
    "points a text": (lambda table: table, {"points": "x"}),
    "points 2**70": (lambda table: table, {"points": 1 << 70}),
    "points true": (lambda table: table, {"points": True}),
    "another place": (lambda table: table, {"number": 7}),
    "a column twice": (
        lambda table: pa.Table.from_arrays([*table.columns, table.column(0)], [*table.column_names, "point"]),
        None,
    ),
    "lists": (lambda table: table.append_column("z", pa.array([[1]] * table.num_rows)), None),
    "a column less": (lambda table: table.drop_columns(["vm"]), None),
}


def odd(path: Path, kind: str) -> None:
    """Put something in the place of a file that is none."""
    path.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("/dev/zero")
        case "link to a whole part":
            path.symlink_to(path.with_name("part-0001-000001.parquet"))


DAMAGE: dict[str, Callable[[Path], None]] = {
    **{f"journal: {name}": lambda s, d=data: (s / "journal").write_bytes(d) for name, data in JOURNALS.items()},
    **{
        f"manifest: {name}": lambda s, d=data: (s / "manifest.json").write_bytes(sealed(d))
        for name, data in MANIFESTS.items()
    },
    **{f"part: {name}": lambda s, a=change: replaced(s, *a) for name, change in PARTS.items()},
    **{
        f"{name}: {kind}": lambda s, n=name, k=kind: odd(s / n, k)
        for name in (PART, "failures/part-0001-000000.parquet", "manifest.json", "journal", "timings.csv", "lock")
        for kind in ("pipe", "folder", "link", "link to a whole part")
    },
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_a_store_has_every_verb_ends_in_a_sentence(
    store: Path, damage: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    DAMAGE[damage](store)
    for name, verb in (VERBS | {"verify": verify}).items():
        try:
            verb(shutil.copytree(store, tmp_path / name, symlinks=True, copy_function=copied) if name else store)
        except InputError as error:
            assert "\n" not in str(error), name  # noqa: PT017
            assert len(str(error)) < 1500, name  # noqa: PT017
        shutil.rmtree(tmp_path / "merged", ignore_errors=True)
    left = {*os.listdir(tmp_path)} - {"store", "out.csv", *VERBS, "verify"}
    assert left == set()
    if ("part" in damage.partition(":")[0] and "link" in damage) or "manifest: " in damage:
        with pytest.raises(InputError):
            (read_failures if "failures" in damage else read_results)(store)


def copied(source: str, target: str, *, follow_symlinks: bool = True) -> None:
    """Copy a file, or make another pipe."""
    if Path(source).is_fifo():
        os.mkfifo(target)
    else:
        shutil.copy(source, target, follow_symlinks=follow_symlinks)


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
