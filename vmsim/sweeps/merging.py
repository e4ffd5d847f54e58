"""What can be done with stores once they are there: look, merge, export."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vmsim.base.errors import InputError
from vmsim.base.files import printable, refuse_overwrite, replacing
from vmsim.record.folder import replacing_folder
from vmsim.sweeps.journal import JOURNAL
from vmsim.sweeps.parts import RESULTS, Part, columns_of, encoded
from vmsim.sweeps.reader import View, reading
from vmsim.sweeps.repair import verify
from vmsim.sweeps.store import Store
from vmsim.sweeps.tables import read_failures, results_table, table_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Contents", "contents", "export", "merge", "verify"]

_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


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
    waiting = os.path.lexists(folder / JOURNAL)
    return Contents(points, table.num_rows, len(read_failures(folder)), waiting, columns_of(table.schema))


def merge(folders: Sequence[Path], out: Path) -> Contents:
    """Put the results of several stores into a new one, each point once.

    Points are in the order of the folders, and of the results in each. Failures are left behind. The new store is
    made under another name beside `out` and gets its own when it is whole: who merges there at once is refused.

    Raises
    ------
    InputError
        The stores have different columns, or different results for the same point; `out` exists, or cannot be
        written.
    """
    with ExitStack() as stack:
        views = [stack.enter_context(reading(folder)) for folder in folders]
        for view in views:
            view.expect_whole()
        filled = [view for view in views if view.parts(RESULTS) or view.journal] or views[:1]  # a shard may be empty
        tables = [table_of(view) for view in filled]
        facts = _shared_facts(filled)
    merged = tables[0]
    for view, table in zip(filled[1:], tables[1:], strict=True):
        folder = view.folder
        if columns_of(table.schema) != columns_of(merged.schema):
            raise InputError(
                f"{printable(folder)}: has other columns than {printable(filled[0].folder)}; their results do not go "
                "together."
            )
        merged = pa.concat_tables([merged, _new(merged, table, folder)])
    with (
        replacing_folder(out, whose="merge into a new folder") as temporary,
        Store.open(temporary, lock=False) as store,
    ):
        for number, rows in enumerate(_cut(merged, store.part)):
            part = Part(1, number)
            points = int(pc.count_distinct(rows["point"]).as_py())
            data = encoded(rows, facts | part._asdict() | {"points": points})
            store.list_part(RESULTS, part, data, points, rows.num_rows)
        store.finish()
    return contents(out)


def export(folder: Path, file: Path, *, force: bool = False, formulas: bool = True) -> int:
    """Write all results of a store to one CSV or Parquet file; return how many rows.

    Parameters
    ----------
    folder : Path
        The store.
    file : Path
    force : bool, optional
        Replace a file that is there.
    formulas : bool, optional
        Leave texts of a CSV as they are. False puts an apostrophe before each that begins with ``=``, ``+``, ``-``,
        ``@``, a tab or a carriage return, which spreadsheets take for formulas.

    Raises
    ------
    InputError
        The name ends in neither .csv nor .parquet, it is there, or it cannot be written.
    """
    if file.suffix not in (".csv", ".parquet"):
        raise InputError(f"{printable(file)}: expected a name that ends in .csv or .parquet.")
    refuse_overwrite(file, force=force)
    table = results_table(folder)
    with replacing(file, force=force) as temporary:
        if file.suffix == ".parquet":
            temporary.write_bytes(encoded(table))
        else:
            frame = table.to_pandas()
            if not formulas:
                frame = _without_formulas(frame)
            frame.to_csv(temporary, index=False, lineterminator="\n")
    return int(table.num_rows)


def _without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    def quoted(text: Any) -> Any:
        return f"'{text}" if isinstance(text, str) and text.startswith(_FORMULAS) else text

    texts = [name for name in frame if not (is_numeric_dtype(frame[name]) or is_bool_dtype(frame[name]))]
    return frame.assign(**{str(name): frame[name].map(quoted) for name in texts}).rename(columns=quoted)


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
            raise InputError(f"{printable(folder)}: the point {point} has other results, or other values, than before.")
    return table.filter(pc.invert(double))


def _cut(table: pa.Table, size: int) -> Iterator[pa.Table]:
    """Yield the rows of `size` points at a time."""
    if not table.num_rows:
        yield table
        return
    points = np.array(table["point"].to_pylist())
    _, first = np.unique(points, return_index=True)
    starts = np.sort(first)[::size]
    for start, end in zip(starts, [*starts[1:], table.num_rows], strict=True):
        yield table.slice(int(start), int(end - start)).combine_chunks()


def _shared_facts(views: Sequence[View]) -> dict[str, Any]:
    """Return the facts that all parts have in common."""
    every = [view.read(RESULTS, part).facts for view in views for part in view.parts(RESULTS)]
    if not every:
        return {}
    return {key: value for key, value in every[0].items() if all(each.get(key) == value for each in every)}
