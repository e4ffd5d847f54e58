"""From a store to one tidy table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.record.columns import attributes
from vmsim.sweeps.parts import DESCRIBED, FAILURE_COLUMNS, FAILURES, RESULTS, as_table, columns_of
from vmsim.sweeps.plan import Identities, Plan
from vmsim.sweeps.reader import View, reading
from vmsim.sweeps.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_failures", "read_points", "read_results", "recorded_points", "results_table", "table_of"]


def read_results(folder: str | Path) -> pd.DataFrame:
    """Return the results of a sweep: one row for each point, replicate and VM.

    Points that are finished but not in a part yet, because the sweep was interrupted or still runs, are there too.

    Raises
    ------
    InputError
        The folder has no sweep in it, or a part is damaged.
    """
    return _frame(results_table(Path(folder)))


def read_points(folder: str | Path, sweep: Sweep) -> pd.DataFrame:
    """Return the results of those points of a store that a sweep has, in the sweep's order.

    Raises
    ------
    InputError
        As of `read_results`.
    """
    table = read_results(folder)
    plan = Plan.of(sweep)
    order = {plan.identity(place): place for place in range(len(plan))}
    kept = table[table["point"].isin(order)]
    places = kept["point"].map(order)
    return kept.loc[places.sort_values(kind="stable").index].reset_index(drop=True)


def read_failures(folder: str | Path) -> pd.DataFrame:
    """Return the points that failed and have no result: point, replicate, seed, failure (a traceback).

    Raises
    ------
    InputError
        As of `read_results`.
    """
    folder = Path(folder)
    with reading(folder) as view:
        failed = _concatenated(view.tables(FAILURES), folder)
        if failed is None or not failed.num_rows:
            return _frame(as_table(FAILURE_COLUMNS, []))
        made = table_of(view)["point"].to_pylist()
    table = _frame(failed)
    return table[~table["point"].isin(set(made))].drop_duplicates("point", keep="last").reset_index(drop=True)


def results_table(folder: Path) -> pa.Table:
    """Return the results of a store as one table of Arrow."""
    with reading(folder) as view:
        return table_of(view)


def table_of(view: View) -> pa.Table:
    """Return all results as one table of Arrow.

    Raises
    ------
    InputError
        There are none, or a part is damaged.
    """
    table = _concatenated(view.tables(RESULTS), view.folder)
    if table is None:
        raise InputError(f"{printable(view.folder)}: there are no results in it yet.")
    return table


def recorded_points(folder: Path, *, again: bool = False) -> Identities:
    """Return the points that a store has, those of an interrupted sweep included.

    Parameters
    ----------
    folder : Path
        Of the store; it need not be there.
    again : bool, optional
        Leave out points that failed.

    Raises
    ------
    InputError
        The store is damaged, or something else is there.
    """
    if "\0" in str(folder):
        raise InputError(f"{printable(folder)}: this can be no folder's name.")
    try:
        empty = not folder.is_dir() or not any(folder.iterdir())
    except OSError as error:
        raise InputError(f"{printable(folder)}: cannot be read: {error.strerror or error}.") from error
    if empty:
        if not folder.is_dir() and folder.exists():
            raise InputError(f"{printable(folder)}: this is a file; expected the folder of a sweep.")
        return np.zeros(0, "S32")
    with reading(folder) as view:
        return view.points(again=again)


def _concatenated(tables: list[pa.Table], folder: Path) -> pa.Table | None:
    if not tables:
        return None
    first = columns_of(tables[0].schema)
    for table in tables[1:]:
        here = columns_of(table.schema)
        if [*here.items()] != [*first.items()]:
            differ = [name for name in {**first, **here} if here.get(name) != first.get(name)]
            raise InputError(
                f"{printable(folder)}: the parts, or the journal, have different columns"
                f"{f': {differ[0]} and {len(differ) - 1} more' if differ else ''}."
            )
    return pa.concat_tables([table.replace_schema_metadata() for table in tables])


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    frame.attrs = attributes(map(str, frame.columns), DESCRIBED)
    return frame
