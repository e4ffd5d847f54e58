"""A run directory: ``manifest.json``, a Parquet file for each table, ``summary.csv``.

Every file but the manifest is the same, byte for byte, whenever and wherever the same scenario is run with the
same versions of the libraries that write it. What differs from run to run is in the manifest alone.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.record.accessors import Tables
from vmsim.record.arrow import TYPES, schema
from vmsim.record.columns import COLUMNS, Column, attributes
from vmsim.record.folder import MANIFEST, read_manifest, read_output, replacing_folder, write_manifest
from vmsim.record.tables import TABLES
from vmsim.record.timeline import COLUMNS as SPANS
from vmsim.scenario import Scenario

__all__ = ["FORMAT", "provenance", "read_run", "read_table", "spans_of", "write_run"]

FORMAT: Final = "vmsim run 3"

_TIMELINE: Final = "timeline.parquet"  # where it was asked for
_EVERY: Final = b"every"
_PACKAGES: Final = ("vmsim", "numba", "llvmlite", "numpy", "pandas", "pyarrow", "pydantic", "simpy", "zstandard")


def write_run(
    path: Path,
    tables: Tables,
    scenario: Scenario,
    *,
    outcome: Mapping[str, Any],
    inputs: Mapping[str, str],
    timeline: pd.DataFrame | None = None,
    force: bool = False,
) -> None:
    """Write a run directory, whole or not at all.

    Parameters
    ----------
    path : Path
        Absent or an empty folder, or with `force` one of an earlier run.
    tables : Tables
        Of the result.
    scenario : Scenario
        What was simulated.
    outcome : mapping
        What is said of the simulation as a whole, as JSON types.
    inputs : mapping of str to str
        SHA-256 of each file that was read, by its path.
    timeline : DataFrame, optional
        What happened when, where it was noted.
    force : bool, optional
        Replace an earlier run.

    Raises
    ------
    InputError
        The folder cannot be written, or holds something else.
    """
    with replacing_folder(path, force=force) as folder:
        _write_tables(tables, folder)
        if timeline is not None:
            columns = {name: column.kind for name, column in SPANS.items()}
            form = schema(columns, SPANS).with_metadata({_EVERY: str(timeline.attrs.get("every", 1))})
            _write_parquet(timeline, form, folder / _TIMELINE)
        write_manifest(folder, FORMAT, _facts(scenario) | {"inputs": dict(inputs), "outcome": dict(outcome)})


def _write_tables(tables: Tables, folder: Path) -> None:
    """Write all tables of a result into a folder that exists."""
    for name, (columns, _) in TABLES.items():
        _write_parquet(tables.table(name), schema(columns, COLUMNS[name]), folder / f"{name}.parquet")
    tables.summary.to_csv(folder / "summary.csv", index=False, lineterminator="\n")


def read_run(path: Path) -> dict[str, Any]:
    """Check that every file of a run directory is as it was written; return its manifest.

    Raises
    ------
    InputError
        It is no run directory, or a file in it is missing or damaged.
    """
    manifest = read_manifest(path, FORMAT)
    texts = {"scenario": str, "folder": str, "inputs": dict, "outcome": dict}
    for key, kind in texts.items():
        if not isinstance(manifest.get(key), kind):
            found = f"found {str(manifest[key])[:80]!r}" if key in manifest else "it is missing"
            what = "a text" if kind is str else "an object"
            raise InputError(f"{printable(path / MANIFEST)}: {key}: expected {what}; {found}.")
    if not all(isinstance(digest, str) for digest in manifest["inputs"].values()):
        raise InputError(f"{printable(path / MANIFEST)}: inputs: expected a SHA-256 for each file.")
    return manifest


def spans_of(path: Path, outputs: Mapping[str, str]) -> Callable[[], pd.DataFrame] | None:
    """Return what reads the timeline of a run directory; None if it has none."""
    return partial(_read_timeline, path, outputs) if _TIMELINE in outputs else None


def _read_timeline(path: Path, outputs: Mapping[str, str]) -> pd.DataFrame:
    table = _parquet(path / _TIMELINE, read_output(path, _TIMELINE, outputs))
    made = _frame(path / _TIMELINE, table, SPANS)
    every = (table.schema.metadata or {}).get(_EVERY, b"1").decode("ascii", "replace")
    made.attrs["every"] = int(every) if every.isdecimal() else 1
    return made


def read_table(path: Path, outputs: Mapping[str, str], name: str) -> pd.DataFrame:
    """Return a table of a run directory.

    Parameters
    ----------
    path : Path
    outputs : mapping of str to str
        SHA-256 of each file, as of the manifest.
    name : str
        Of the table.

    Raises
    ------
    InputError
        The file is not the one that the manifest lists, cannot be read as Parquet, or has other columns.
    """
    file = path / f"{name}.parquet"
    return _frame(file, _parquet(file, read_output(path, file.name, outputs)), COLUMNS[name])


def _parquet(file: Path, data: bytes) -> pa.Table:
    """Return a table from the bytes of a Parquet file."""
    try:
        # neither of Arrow's thread pools: one that is torn down while it starts ends the process by SIGABRT
        with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True) as opened:
            return opened.read(use_threads=False)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{printable(file)}: cannot be read: {error}") from error


def _frame(file: Path, table: pa.Table, described: Mapping[str, Column]) -> pd.DataFrame:
    """Return a table with the columns that it is to have, and none besides."""
    columns = {name: column.kind for name, column in described.items()}
    if table.column_names != list(columns):
        raise InputError(
            f"{printable(file)}: expected the columns {', '.join(columns)}; found "
            f"{', '.join(table.column_names)[:500]}."
        )
    for column, kind in columns.items():
        if table[column].type != TYPES[kind] or table[column].null_count:
            raise InputError(
                f"{printable(file)}: column {column}: expected {kind} in each row; found {table[column].type}"
                f"{' and missing values' if table[column].null_count else ''}."
            )
    made = pd.DataFrame({column: pd.Series(table[column].to_pylist(), dtype=kind) for column, kind in columns.items()})
    made.attrs = attributes(columns, described)
    return made


def provenance() -> dict[str, Any]:
    """Return what may differ between two runs of one scenario: date, versions, platform, jitted sources."""
    from vmsim.jit import source_digest

    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {package: version(package) for package in _PACKAGES},
        "platform": {
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        },
        "jit_sources_sha256": source_digest(),
    }


def _facts(scenario: Scenario) -> dict[str, Any]:
    return {
        **provenance(),
        "scenario": scenario.to_toml(),
        "canonical": scenario.canonical(),
        "folder": str(scenario.folder.absolute()),
        "seed": scenario.seed,
        "chosen_modes": {vm: {"mode": each.mode, "reason": each.reason} for vm, each in scenario.choices.items()},
    }


def _write_parquet(table: pd.DataFrame, schema: pa.Schema, path: Path) -> None:
    """Write a table with a schema of its own, without the metadata that pandas would add."""
    arrays = [pa.array(table[field.name].to_list(), field.type) for field in schema]
    with path.open("wb") as file:  # pyarrow wants the names of files to be UTF-8
        pq.write_table(pa.table(arrays, schema=schema), file, compression="zstd", compression_level=3)
