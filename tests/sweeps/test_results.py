"""Can results be opened, merged, exported and verified, and does damage show?"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.sweeps import fake
from vmsim.base.errors import InputError
from vmsim.sweeps import read_results, run_sweep
from vmsim.sweeps.merging import contents, export, merge, verify
from vmsim.sweeps.parts import read_part, write_table
from vmsim.sweeps.shard import Shard
from vmsim.sweeps.store import Store


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "part", 16)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    run_sweep(fake.sweep(40), tmp_path / "store", jobs=1, work=fake.work)
    return tmp_path / "store"


def test_pandas_and_duckdb_open_the_folder_as_it_is(store: Path) -> None:
    ours = read_results(store)
    pd.testing.assert_frame_equal(pd.read_parquet(store / "results"), ours)
    query = f"select \"vm.workload.accesses\", accesses from read_parquet('{store}/results/*.parquet') order by all"
    theirs = duckdb.sql(query).fetchall()
    assert theirs == sorted(ours[["vm.workload.accesses", "accesses"]].itertuples(index=False, name=None))


def test_parts_do_not_get_in_the_way_of_one_another(tmp_path: Path) -> None:
    made = [fake.sweep(20), fake.sweep(30), fake.sweep(45)]
    for number, sweep in enumerate(made):
        run_sweep(sweep, tmp_path / str(number), jobs=1, work=fake.work)
    found = merge([tmp_path / str(number) for number in range(3)], tmp_path / "all")
    assert (found.points, found.rows) == (45, 90)
    run_sweep(fake.sweep(45), tmp_path / "once", jobs=1, work=fake.work)
    pd.testing.assert_frame_equal(read_results(tmp_path / "all"), read_results(tmp_path / "once"))
    assert verify(tmp_path / "all") == []
    assert run_sweep(fake.sweep(46), tmp_path / "all", jobs=1, work=fake.work).done == 1


def test_a_conflict_names_the_point(store: Path, tmp_path: Path) -> None:
    def other(batch: Any) -> Any:
        return [done._replace(rows=[[*row[:-1], row[-1] + 1] for row in done.rows]) for done in fake.work(batch)]

    run_sweep(fake.sweep(3), tmp_path / "other", jobs=1, work=other)
    with pytest.raises(InputError) as error:
        merge([store, tmp_path / "other"], tmp_path / "all")
    assert any(point.identity in str(error.value) for point in fake.sweep(3).points())
    assert not (tmp_path / "all").exists()


def test_stores_of_other_columns_and_folders_in_use_are_refused(store: Path, tmp_path: Path) -> None:
    run_sweep(fake.sweep(3, **{"host.cores": [1]}), tmp_path / "other", jobs=1, work=fake.work)
    with pytest.raises(InputError, match="other columns"):
        merge([store, tmp_path / "other"], tmp_path / "all")
    with pytest.raises(InputError, match="merge into a new folder"):
        merge([tmp_path / "other"], store)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_everything_is_exported(store: Path, tmp_path: Path, suffix: str) -> None:
    assert export(store, tmp_path / f"all{suffix}") == 80
    read = {".csv": pd.read_csv, ".parquet": pd.read_parquet}[suffix]
    pd.testing.assert_frame_equal(read(tmp_path / f"all{suffix}"), read_results(store), check_dtype=False)


def test_other_names_are_not_exported_to(store: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.csv or \.parquet"):
        export(store, tmp_path / "all.xlsx")


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "double", "foreign", "manifest", "no manifest"])
def test_damage_shows(store: Path, damage: str, tmp_path: Path) -> None:
    assert verify(store) == []
    part = store / "results" / "part-0001-000001.parquet"
    data = bytearray(part.read_bytes())
    match damage:
        case "flip":
            data[200] ^= 4
            part.write_bytes(data)
        case "cut":
            part.write_bytes(data[:-9])
        case "missing":
            part.unlink()
        case "double":
            (store / "results" / "part-0002-000000.parquet").write_bytes(data)
        case "foreign":
            pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)
        case "manifest":
            manifest = json.loads((store / "manifest.json").read_text())
            manifest["results"]["../../x"] = {"sha256": "0", "points": 1, "rows": 1}
            (store / "manifest.json").write_text(json.dumps(manifest))
        case "no manifest":
            (store / "manifest.json").unlink()
    assert len(verify(store)) >= 1
    if "manifest" in damage:
        assert verify(store, repair=True) == []


def test_a_part_with_another_type_of_column_is_refused(store: Path) -> None:
    part = store / "results" / "part-0001-000001.parquet"
    table, facts = read_part(part)
    write_table(part, table.append_column("list", [[[1]] * table.num_rows]), facts)
    with pytest.raises(InputError, match="damaged or exchanged"):
        read_results(store)
    (store / "manifest.json").unlink()
    verify(store, repair=True)  # nor is it taken for whole in itself
    with pytest.raises(InputError, match="columns that a sweep does not have"):
        read_part(part.with_name(f"_{part.name}.damaged"))
    assert run_sweep(fake.sweep(40), store, jobs=1, work=fake.work).done == 16
    assert read_results(store)["point"].nunique() == 40


def test_what_is_no_store_is_told(tmp_path: Path) -> None:
    for function in (read_results, contents, verify):
        with pytest.raises(InputError, match="not a folder of sweep results"):
            function(tmp_path)


@pytest.mark.parametrize(("size", "of"), [(40, 1), (20, 3), (3, 5)])
def test_shards_merged_are_the_whole_sweep_byte_for_byte(size: int, of: int, tmp_path: Path) -> None:
    sweep = fake.sweep(size)
    run_sweep(sweep, tmp_path / "whole", jobs=1, work=fake.work)
    folders = [tmp_path / f"shard-{number}" for number in range(1, of + 1)]
    points = 0
    for number, folder in enumerate(folders, 1):
        points += run_sweep(sweep, folder, jobs=1, work=fake.work, shard=Shard(number, of)).done
    assert points == size
    merge(folders, tmp_path / "merged")
    whole, merged = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "whole", tmp_path / "merged")
    )
    del whole[Path("timings.csv")]
    assert merged == whole
    assert run_sweep(sweep, tmp_path / "merged", jobs=1, work=fake.work).recorded == size


def test_shards_go_on_where_they_were_interrupted(tmp_path: Path) -> None:
    sweep, folder = fake.sweep(40), tmp_path / "shard"
    run_sweep(sweep, folder, jobs=1, work=fake.work, shard=Shard(2, 4))
    again = run_sweep(sweep, folder, jobs=1, work=fake.work, shard=Shard(2, 4))
    assert (again.points, again.recorded, again.done) == (11, 11, 0)  # later points make more accesses


@pytest.mark.parametrize("of", [1, 2, 7, 40, 100])
def test_shards_are_runs_of_points_with_about_the_same_to_simulate(of: int) -> None:
    costs = np.array([float(1 + (place * 37) % 11) * 1000 for place in range(40)])
    bounds = [Shard(number, of).bounds(costs) for number in range(1, of + 1)]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 40
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    sums = [float((costs[first:end] + 1).sum()) for first, end in bounds]
    assert max(sums) <= sum(sums) / of + (costs.max() + 1)  # a point more than its share at most
    assert Shard(1, of).bounds(np.zeros(0)) == (0, 0)


@pytest.mark.parametrize("text", ["0/4", "5/4", "a/4", "1", "1/0", "-1/4", "1/1000000"])
def test_a_shard_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--shard"):
        Shard.parse(text)
    assert Shard.parse("3/64") == (3, 64)
