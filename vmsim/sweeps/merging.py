"""What can be done with stores once they are there: look, merge, export, verify."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vmsim.errors import InputError
from vmsim.files import replacing
from vmsim.sweeps.journal import JOURNAL, Journal
from vmsim.sweeps.manifest import MANIFEST, build_manifest, write_manifest
from vmsim.sweeps.parts import FAILURES, PART, RESULTS, Part, columns_of, list_parts, part_facts, read_part, write_table
from vmsim.sweeps.store import Store
from vmsim.sweeps.tables import read_failures, read_results, results_table

__all__ = ["Contents", "contents", "export", "merge", "verify"]


class Contents(NamedTuple):
    """What a store has.

    Attributes
    ----------
    points, rows : int
        Points with a result, and their rows: one for each VM.
    failures : int
        Points that failed and have no result.
    waiting : bool
        A sweep was interrupted, or runs: there is a journal.
    columns : dict of str to str
        Columns of the results with their kinds.
    """

    points: int
    rows: int
    failures: int
    waiting: bool
    columns: dict[str, str]


def contents(folder: Path) -> Contents:
    """Return what a store has.

    Raises
    ------
    InputError
        The folder has no sweep in it, or a part is damaged.
    """
    table = results_table(folder)
    points = int(pc.count_distinct(table["point"]).as_py())
    waiting = (folder / JOURNAL).exists()
    return Contents(points, table.num_rows, len(read_failures(folder)), waiting, columns_of(table.schema))


def merge(folders: Sequence[Path], out: Path) -> Contents:
    """Put the results of several stores into a new one, each point once.

    Points are in the order of the folders, and of the results in each. Failures are left behind.

    Raises
    ------
    InputError
        The stores have different columns, or different results for the same point; `out` exists, or cannot be
        written.
    """
    if list_parts(out / RESULTS):
        raise InputError(f"{out}: there are results in it; merge into a new folder.")
    tables = [(folder, results_table(folder)) for folder in folders]
    merged = tables[0][1]
    for folder, table in tables[1:]:
        if columns_of(table.schema) != columns_of(merged.schema):
            raise InputError(f"{folder}: has other columns than {folders[0]}; their results do not go together.")
        merged = pa.concat_tables([merged, _new(merged, table, folder)])
    facts = _shared_facts(folders)
    with Store.open(out):
        for number, rows in enumerate(_cut(merged)):
            part = Part(1, number)
            points = int(pc.count_distinct(rows["point"]).as_py())
            write_table(out / RESULTS / part.name, rows, facts | part._asdict() | {"points": points})
    return contents(out)


def export(folder: Path, file: Path) -> int:
    """Write all results of a store to one CSV or Parquet file; return how many rows.

    Raises
    ------
    InputError
        The name ends in neither .csv nor .parquet, or the file cannot be written.
    """
    if file.suffix not in (".csv", ".parquet"):
        raise InputError(f"{file}: expected a name that ends in .csv or .parquet.")
    table = results_table(folder)
    if file.suffix == ".parquet":
        write_table(file, table)
    else:
        with replacing(file) as temporary:
            read_results(folder).to_csv(temporary, index=False, lineterminator="\n")
    return table.num_rows


def verify(folder: Path, *, repair: bool = False) -> list[str]:
    """Return what is wrong with a store, in sentences; none if it is whole.

    Every part is read to its end and compared with the manifest. A point may be in one part only.

    Parameters
    ----------
    folder : Path
    repair : bool, optional
        Make the manifest again from the parts, if they are whole.

    Raises
    ------
    InputError
        The folder has no sweep in it.
    """
    if not (folder / RESULTS).is_dir():
        raise InputError(f"{folder}: not a folder of sweep results.")
    damage = [*_damaged(folder)]
    if damage:
        return damage
    if repair:
        with Store.open(folder):
            write_manifest(folder)
    return [*_differences(folder)]


def _new(merged: pa.Table, table: pa.Table, folder: Path) -> pa.Table:
    """Return the rows whose points are not there yet; those that are must say the same."""
    double = pc.is_in(table["point"], value_set=merged["point"].combine_chunks())
    if pc.any(double).as_py():
        theirs = table.filter(double)
        ours = merged.filter(pc.is_in(merged["point"], value_set=theirs["point"].combine_chunks()))
        first = ours.sort_by([("point", "ascending"), ("vm", "ascending")])
        second = theirs.sort_by([("point", "ascending"), ("vm", "ascending")])
        if not first.equals(second):
            point = next(
                (a["point"] for a, b in zip(first.to_pylist(), second.to_pylist(), strict=False) if a != b),
                first["point"][-1].as_py(),
            )
            raise InputError(f"{folder}: the point {point} has other results, or other values, than before.")
    return table.filter(pc.invert(double))


def _cut(table: pa.Table) -> Iterator[pa.Table]:
    """Yield the rows of `PART` points at a time."""
    if not table.num_rows:
        yield table
        return
    points = np.array(table["point"].to_pylist())
    _, first = np.unique(points, return_index=True)
    starts = np.sort(first)[::PART]
    for start, end in zip(starts, [*starts[1:], table.num_rows], strict=True):
        yield table.slice(int(start), int(end - start)).combine_chunks()


def _shared_facts(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the facts that all parts have in common."""
    every = [part_facts(path) for folder in folders for path in list_parts(folder / RESULTS).values()]
    if not every:
        return {}
    return {key: value for key, value in every[0].items() if all(each.get(key) == value for each in every)}


def _damaged(folder: Path) -> Iterator[str]:
    seen: set[str] = set()
    columns: dict[str, str] = {}
    for path in list_parts(folder / RESULTS).values():
        try:
            table, facts = read_part(path, check=True)
        except InputError as error:
            yield str(error)
            continue
        columns = columns or columns_of(table.schema)
        points: dict[Any, None] = dict.fromkeys(table["point"].to_pylist())
        if columns_of(table.schema) != columns:
            yield f"{path}: has other columns than the first part."
        if len(points) != facts["points"]:
            yield f"{path}: has {len(points)} points, expected {facts['points']}."
        for point in points:
            if point in seen:
                yield f"{path}: the point {point} is in another part too."
        seen |= points.keys()
    for path in list_parts(folder / FAILURES).values():
        try:
            read_part(path, check=True)
        except InputError as error:
            yield str(error)
    if (folder / JOURNAL).exists():
        journal = Journal.opened(folder / JOURNAL, reading=True)
        if journal is None:
            yield f"{folder / JOURNAL}: damaged; the next sweep begins it anew."
        else:
            journal.close()


def _differences(folder: Path) -> Iterator[str]:
    """Yield how the manifest differs from the parts."""
    path = folder / MANIFEST
    again = f"vmsim results verify --repair {folder} makes it again."
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        yield f"{path}: cannot be read: {error}. {again}"
        return
    expected = build_manifest(folder)
    if found == expected:
        return
    listed = found.get(RESULTS) if isinstance(found, dict) else None
    if not isinstance(listed, dict):
        yield f"{path}: damaged. {again}"
        return
    for name in sorted({*listed, *expected[RESULTS]}):
        ours, theirs = expected[RESULTS].get(name), listed.get(name)
        if ours is None:
            yield f"{name}: missing, though {MANIFEST} lists it."
        elif theirs is None:
            yield f"{name}: not in {MANIFEST}, as after a sweep that was killed. {again}"
        elif ours != theirs:
            yield f"{name}: its SHA-256 is not that in {MANIFEST}."
    if listed == expected[RESULTS]:
        yield f"{path}: damaged. {again}"
