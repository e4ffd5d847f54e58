"""Stores to be damaged, and everything that reads them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.sweeps import fake
from vmsim.cli import main
from vmsim.sweeps import read_failures, read_results, run_sweep
from vmsim.sweeps.estimate import missing_points
from vmsim.sweeps.merging import contents, export, merge
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


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values(["point", "vm"]).reset_index(drop=True)
