"""Is a store the same bytes whoever ran what when, and whole whatever happens?"""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.sweeps import fake
from vmsim.base.errors import InputError
from vmsim.sweeps import Summary, Sweep, journal, read_failures, read_results, run_sweep
from vmsim.sweeps.executors import Here, processes
from vmsim.sweeps.journal import Journal
from vmsim.sweeps.lock import locked
from vmsim.sweeps.repair import verify
from vmsim.sweeps.store import Store


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "part", 16)


def run(sweep: Sweep, out: Path, **options: Any) -> Summary:
    options = {"jobs": 1, "work": fake.work} | options
    return run_sweep(sweep, out, **options)


class Shuffled(Executor):
    """An executor that finishes what it was given in a random order, and late."""

    workers = 5

    def __init__(self) -> None:
        self._chance = random.Random(5)
        self._given: list[tuple[Future[Any], Callable[[], Any]]] = []
        self._timer: threading.Timer | None = None

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._given.append((future, lambda: function(*arguments, **named)))
        if self._timer is None:
            self._timer = threading.Timer(0.01, self._finish)
            self._timer.start()
        return future

    def _finish(self) -> None:
        self._timer = None
        given, self._given = self._given, []
        self._chance.shuffle(given)
        for future, call in given:
            future.set_result(call())


def test_the_bytes_are_those_of_the_plan_whoever_ran_it_in_whatever_order(tmp_path: Path) -> None:
    sweep = fake.sweep(70, "replicates = 2\n")
    work = partial(fake.work, fail=(103, 150))
    made: dict[str, Any] = {
        "here": {"executor": Here},
        "two processes": {"executor": processes(2)},
        "any order": {"executor": Shuffled},
    }
    for name, options in made.items():
        summary = run(sweep, tmp_path / name, jobs=None, work=work, **options)
        assert (summary.done, summary.failed) == (136, 4)
    expected = fake.contents(tmp_path / "here")
    assert len(expected) == 9 + 2 + 1
    for name in made:
        assert fake.contents(tmp_path / name) == expected, name


def test_a_point_that_is_done_is_never_run_again_and_a_longer_axis_runs_what_is_new(tmp_path: Path) -> None:
    assert run(fake.sweep(40), tmp_path / "a").done == 40
    before = fake.contents(tmp_path / "a")
    assert run(fake.sweep(40), tmp_path / "a").recorded == 40
    assert fake.contents(tmp_path / "a") == before
    summary = run(fake.sweep(50), tmp_path / "a")
    assert (summary.recorded, summary.done) == (40, 10)
    after = fake.contents(tmp_path / "a")
    assert all(after[name] == data for name, data in before.items() if name.startswith("results"))
    assert read_results(tmp_path / "a")["vm.workload.accesses"].to_list() == [100 + n // 2 for n in range(100)]


def test_a_table_is_tidy(tmp_path: Path) -> None:
    text = 'names.size = "vm.workload.footprint"\nnames.share = "vm.workload.writes"\nreplicates = 2\n'
    sweep = fake.sweep(3, text, size=["64KiB", 131072], share=[0.5, 1], **{"vm.mode": ["ept", "native"]})
    run(sweep, tmp_path)
    table = read_results(tmp_path)
    assert len(table) == 3 * 2 * 2 * 2 * 2 * 2
    axes = ["vm.workload.accesses", "size", "share", "vm.mode"]
    assert [*table.columns] == ["point", "replicate", "seed", *axes, *fake.COLUMNS]
    assert not table.duplicated(["point", "vm"]).any()
    assert table.groupby([*axes, "replicate", "vm"]).size().eq(1).all()
    assert [str(table[name].dtype) for name in axes[:3]] == ["int64", "int64", "float64"]
    assert set(table["size"]) == {65536, 131072}
    assert set(table["vm.mode"]) == {"ept", "native"}
    points = {point.identity: point for point in sweep.points()}
    for row in table.to_dict("records"):
        point = points[row["point"]]
        assert (row["seed"], row["replicate"]) == (point.scenario.seed, point.replicate)
        assert row["share"] == point.values["share"]


def test_failures_are_tried_again_then_recorded_then_left_alone_until_asked_for(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    work = partial(fake.work, fail=(103,))
    summary = run(fake.sweep(20), tmp_path, work=work, retries=3, listener=events.append)
    assert (summary.done, summary.failed) == (19, 1)
    assert sum(event["event"] == "retry" for event in events) == 3
    failures = read_failures(tmp_path)
    assert failures["failure"].to_list() == ["Traceback\nValueError: 103\n"]
    assert run(fake.sweep(20), tmp_path).done == 0
    assert run(fake.sweep(20), tmp_path, again=True).done == 1
    assert read_failures(tmp_path).empty
    assert read_results(tmp_path)["point"].nunique() == 20
    assert run(fake.sweep(20), tmp_path, again=True).recorded == 20


def interrupted(sweep: Sweep, out: Path, after: int) -> None:
    """Run, and stop as if killed after so many points."""
    seen = 0

    def count(event: dict[str, Any]) -> None:
        nonlocal seen
        seen += event["event"] == "done"
        if seen == after:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run(sweep, out, listener=count)


def test_what_an_interrupted_sweep_has_can_be_read_and_is_kept_if_another_sweep_comes(tmp_path: Path) -> None:
    interrupted(fake.sweep(60), tmp_path, 37)
    some = read_results(tmp_path)
    assert 37 <= some["point"].nunique() < 60
    done = set(some["vm.workload.accesses"])
    summary = run(
        Sweep.from_toml(f'axes."vm.workload.accesses" = [{min(done)}, 99, {max(done)}]' + fake.BASE), tmp_path
    )
    assert (summary.recorded, summary.done) == (2, 1)
    assert set(read_results(tmp_path)["vm.workload.accesses"]) == done | {99}
    assert not (tmp_path / "journal").exists()


def test_resuming_ends_in_the_same_bytes(tmp_path: Path) -> None:
    run(fake.sweep(60), tmp_path / "whole")
    for after in (1, 20, 59):
        interrupted(fake.sweep(60), tmp_path / str(after), after)
        run(fake.sweep(60), tmp_path / str(after))
        assert fake.contents(tmp_path / str(after)) == fake.contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["cut", "flip", "add"])
def test_a_torn_journal_loses_what_is_torn_and_no_more(tmp_path: Path, damage: str) -> None:
    run(fake.sweep(60), tmp_path / "whole")
    interrupted(fake.sweep(60), tmp_path / "torn", 30)
    file = tmp_path / "torn" / "journal"
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[-20] ^= 1
    file.write_bytes(data[:-5] if damage == "cut" else data + b"\xff" * 7 if damage == "add" else data)
    summary = run(fake.sweep(60), tmp_path / "torn")
    assert summary.recorded >= (30 if damage == "add" else 1)
    assert fake.contents(tmp_path / "torn") == fake.contents(tmp_path / "whole")


def test_other_columns_are_refused(tmp_path: Path) -> None:
    run(fake.sweep(3), tmp_path)
    with pytest.raises(InputError, match=r"would add host\.cores \(int64\)"):
        run(fake.sweep(3, **{"host.cores": [1]}), tmp_path)


@pytest.mark.parametrize("after", [None, 20])
def test_an_axis_may_come_to_have_fractions_or_another_place(tmp_path: Path, after: int | None) -> None:
    share = "vm.workload.writes"
    if after is None:
        run(fake.sweep(30, **{share: [0, 1]}), tmp_path / "a")
    else:
        interrupted(fake.sweep(30, **{share: [0, 1]}), tmp_path / "a", after)
    recorded = read_results(tmp_path / "a")["point"].nunique()
    text = f'axes = {{"{share}" = [0, 0.5, 1], "vm.workload.accesses" = [{", ".join(map(str, range(100, 130)))}]}}\n'
    summary = run(Sweep.from_toml(text + fake.BASE), tmp_path / "a")
    assert (summary.recorded, summary.done) == (recorded, 90 - recorded)
    table = pd.read_parquet(tmp_path / "a" / "results")
    assert str(table[share].dtype) == "float64"
    assert table.groupby([share, "vm.workload.accesses"])["point"].nunique().eq(1).all()
    assert table["point"].nunique() == 90
    assert run(fake.sweep(30, **{share: [0, 1]}), tmp_path / "a").recorded == 60


def test_a_manifest_that_is_gone_is_made_again_only_when_asked(tmp_path: Path) -> None:
    run(fake.sweep(40), tmp_path)
    before = fake.contents(tmp_path)
    manifest = json.loads(before["manifest.json"])
    assert manifest["results_points"] == 40
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"there is no manifest\.json.*--repair"):
        run(fake.sweep(40), tmp_path)
    assert verify(tmp_path, repair=True) == []
    assert fake.contents(tmp_path) == before
    assert run(fake.sweep(40), tmp_path).recorded == 40


def test_parts_name_no_time_and_no_place(tmp_path: Path) -> None:
    run(fake.sweep(5), tmp_path / "one")
    run(fake.sweep(5), tmp_path / "another")
    assert fake.contents(tmp_path / "one") == fake.contents(tmp_path / "another")


FULL = """
import resource, signal, sys
from pathlib import Path
from tests.sweeps import fake
from vmsim.sweeps import run_sweep
from vmsim.sweeps.store import Store
Store.part = 16
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    run_sweep(fake.sweep(60), Path(sys.argv[1]), jobs=1, work=fake.work)
except ValueError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize("size", [100, 3000, 9000, 13000])
def test_a_full_disk_is_told_and_the_store_is_whole(tmp_path: Path, size: int) -> None:
    run(fake.sweep(60), tmp_path / "whole")
    out = tmp_path / "full"
    command = [sys.executable, "-c", FULL, str(out), str(size)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2, done.stderr
    assert "cannot be written: File too large" in done.stdout
    assert not list(out.rglob("*.tmp"))
    run(fake.sweep(60), out)
    assert fake.contents(out) == fake.contents(tmp_path / "whole")


@pytest.mark.parametrize("call", ["write", "replace", "fsync"])
def test_no_space_at_any_moment_is_told(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(os, call)
    left = [2 if call == "replace" else 6]

    def full(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(InputError, match="No space left on device"):
            run(fake.sweep(60), tmp_path / "out")
    run(fake.sweep(60), tmp_path / "out")
    run(fake.sweep(60), tmp_path / "whole")
    assert fake.contents(tmp_path / "out") == fake.contents(tmp_path / "whole")


def test_a_read_only_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(fake.sweep(3), tmp_path)
    before = fake.contents(tmp_path)
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **named: Any) -> int:  # root may write anywhere
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, flags, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(InputError, match="cannot be written: Permission denied"):
            run(fake.sweep(4), tmp_path)
    assert fake.contents(tmp_path) == before


def test_a_second_driver_is_refused_and_the_first_is_not_disturbed(tmp_path: Path) -> None:
    def second(event: dict[str, Any]) -> None:
        if event["event"] == "started":
            with pytest.raises(InputError, match=rf"another sweep writes here \(process {os.getpid()} on "):
                run(fake.sweep(9), tmp_path)

    assert run(fake.sweep(9), tmp_path, listener=second).done == 9
    assert not (tmp_path / "lock").exists()


def test_a_lock_of_another_host_is_believed_and_one_of_a_dead_process_is_not(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text('{"pid": 1, "host": "elsewhere"}')
    with pytest.raises(InputError, match="on the host elsewhere"), locked(lock):
        pass
    lock.write_text('{"pid": 1, "ho')
    with locked(lock), pytest.raises(InputError, match="another sweep writes here"), locked(lock):
        pass
    assert not lock.exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(InputError, match="is not empty and has no sweep in it"):
        run(fake.sweep(3), tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("name", ["results", "failures", "journal", "lock", "timings.csv"])
def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path, name: str) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    run(fake.sweep(3), out)
    if name in ("results", "failures"):
        (out / name).rename(elsewhere)
    else:
        elsewhere.write_text("mine")
        (out / name).unlink(missing_ok=True)
    (out / name).symlink_to(elsewhere)
    before = fake.contents(elsewhere) if elsewhere.is_dir() else elsewhere.read_text()
    with pytest.raises(InputError):
        run(fake.sweep(5), out)
    assert (fake.contents(elsewhere) if elsewhere.is_dir() else elsewhere.read_text()) == before


def test_nothing_is_stored_that_could_run_code(tmp_path: Path) -> None:
    interrupted(fake.sweep(60), tmp_path, 30)
    data = (tmp_path / "journal").read_bytes()
    opened = Journal.opened(tmp_path / "journal")
    assert opened is not None
    assert all(json.dumps(opened.read(start)) for _, start in opened.scan())
    opened.close()
    assert b"\x80\x04" not in data  # how a pickle begins
    source = Path(journal.__file__).parent
    for file in source.glob("*.py"):
        assert not {"pickle", "eval(", "exec(", "marshal"} & set(file.read_text().split()), file
