"""Is every damage to a store seen by everything that reads it, and is nothing wrong ever taken for right?"""

# ruff: noqa: F811  (fixtures)
from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sweeps import fake
from tests.sweeps.damage import PART, SWEEP, VERBS, in_order, made, say, small_parts, store  # noqa: F401
from vmsim.base.errors import InputError
from vmsim.sweeps import merging, read_failures, read_results, run_sweep
from vmsim.sweeps.estimate import missing_points
from vmsim.sweeps.merging import merge
from vmsim.sweeps.repair import repair, verify
from vmsim.sweeps.store import Store

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
