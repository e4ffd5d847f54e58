"""Can every table be queried without quotes, and do the files say what their columns mean?"""

import sqlite3
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.sweeps import fake
from vmsim.record.columns import COLUMNS, MODE, POINT
from vmsim.record.comparison import Comparison
from vmsim.record.result import Result
from vmsim.record.tables import TABLES
from vmsim.sweeps import Sweep, read_failures, read_results, run_sweep
from vmsim.sweeps.merging import export
from vmsim.sweeps.sensitivity import INDICES

EXPERIMENTS = sorted(Path(__file__).parents[2].glob("experiments/*/sweep*.toml"))


@pytest.mark.parametrize("name", TABLES)
def test_duckdb_selects_every_column_of_a_run_without_quotes(name: str, result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "run")
    with duckdb.connect() as base:
        base.execute(f"create table {name} as select * from '{tmp_path}/run/{name}.parquet'")
        for column in TABLES[name][0]:
            found = base.execute(f"select {name}.{column} from {name} where {column} is not null").fetchall()
            assert [value for (value,) in found] == result.table(name)[column].tolist()


@pytest.mark.parametrize("name", TABLES)
def test_sqlite_takes_the_same_names_without_quotes(name: str, result: Result) -> None:
    columns = ", ".join(TABLES[name][0])
    base = sqlite3.connect(":memory:")
    base.execute(f"create table {name} ({columns})")
    assert base.execute(f"select {columns} from {name} order by {columns}").fetchall() == []
    base.close()


def test_duckdb_selects_what_a_sweep_varies_and_makes_without_quotes(tmp_path: Path) -> None:
    tables = '[names]\nlength = "vm.workload.accesses"\n[axes]\nlength = [100, 101, 102]\n'
    run_sweep(Sweep.from_toml(tables + fake.BASE), tmp_path / "s", jobs=1, work=fake.work)
    names = [*read_results(tmp_path / "s").columns]
    assert {"point", "replicate", "seed", "length", *TABLES["summary"][0]} == {*names}
    found = duckdb.sql(f"select {', '.join(names)} from '{tmp_path}/s/results/*.parquet'").fetchall()
    assert len(found) == 6


@pytest.mark.parametrize("path", EXPERIMENTS, ids=[f"{path.parent.name}/{path.stem}" for path in EXPERIMENTS])
def test_names_of_what_the_experiments_vary_need_no_quotes(path: Path) -> None:
    names = Sweep.load(path).varied
    with duckdb.connect() as base:
        base.execute(f"create table t ({', '.join(f'{name} double' for name in names)})")
        assert base.execute(f"select {', '.join(names)} from t").fetchall() == []


@pytest.mark.parametrize("method", INDICES)
def test_indices_of_sensitivity_need_no_quotes(method: str) -> None:
    names = ("response", "parameter", *INDICES[method])
    with duckdb.connect() as base:
        base.execute(f"create table t ({', '.join(f'{name} double' for name in names)})")
        assert base.execute(f"select {', '.join(names)} from t").fetchall() == []


@pytest.mark.parametrize("name", TABLES)
def test_files_and_frames_say_what_columns_mean_and_in_which_unit(name: str, result: Result, tmp_path: Path) -> None:
    result.save(tmp_path / "run")
    described = {key: column.description for key, column in COLUMNS[name].items()}
    units = {key: column.unit for key, column in COLUMNS[name].items() if column.unit}
    schema = pq.read_schema(tmp_path / "run" / f"{name}.parquet")
    assert {field.name: field.metadata[b"description"].decode() for field in schema} == described
    assert {field.name: field.metadata[b"unit"].decode() for field in schema if b"unit" in field.metadata} == units
    for table in (result.table(name), Result.load(tmp_path / "run").table(name)):
        assert table.attrs == {"units": units, "descriptions": described}
    compared = Comparison({"ept": result, "npt": result}).table(name).attrs
    assert compared == {"units": units, "descriptions": {"mode": MODE.description, **described}}


def test_a_sweep_says_the_same_in_parts_exports_and_frames(tmp_path: Path) -> None:
    run_sweep(fake.sweep(3), tmp_path / "s", jobs=1, work=fake.work)
    export(tmp_path / "s", tmp_path / "s.parquet")
    about = {**POINT, **COLUMNS["summary"]}
    about = {name: about[name] for name in ("point", "replicate", "seed", *COLUMNS["summary"])}
    for file in (*(tmp_path / "s" / "results").iterdir(), tmp_path / "s.parquet"):
        for field in pq.read_schema(file):
            column = about.get(field.name)
            assert (column is None) == (field.name == "vm.workload.accesses") == (field.metadata is None)
            if column:
                assert field.metadata[b"description"].decode() == column.description
                assert field.metadata.get(b"unit", b"").decode() == column.unit
    attrs = read_results(tmp_path / "s").attrs
    assert attrs["descriptions"] == {name: column.description for name, column in about.items()}
    assert attrs["units"] == {name: column.unit for name, column in about.items() if column.unit}
    assert read_failures(tmp_path / "s").attrs["descriptions"]["failure"] == POINT["failure"].description


def test_the_list_has_the_kinds_and_names_that_tables_are_made_of() -> None:
    assert {name: [*columns] for name, (columns, _) in TABLES.items()} == {
        name: [*columns] for name, columns in COLUMNS.items()
    }
    for column in (column for columns in COLUMNS.values() for column in columns.values()):
        assert column.description
        assert column.unit or column.kind == "str"
