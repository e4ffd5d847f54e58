"""From a store to one tidy table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from vmsim.errors import InputError
from vmsim.sweeps.journal import JOURNAL, Journal
from vmsim.sweeps.parts import FAILURE_COLUMNS, FAILURES, RESULTS, as_table, list_parts, read_part
from vmsim.sweeps.plan import Plan
from vmsim.sweeps.spec import Sweep

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_failures", "read_points", "read_results", "results_table"]


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
    _check(folder)
    written = list_parts(folder / RESULTS)
    parts = [path for part, path in list_parts(folder / FAILURES).items() if part in written]
    failed = _concatenated([*[read_part(path)[0] for path in parts], *_journaled(folder, failures=True)])
    if failed is None:
        return _frame(as_table(FAILURE_COLUMNS, []))
    made = results_table(folder)["point"].to_pylist()
    table = _frame(failed)
    return table[~table["point"].isin(set(made))].drop_duplicates("point", keep="last").reset_index(drop=True)


def results_table(folder: Path) -> pa.Table:
    """Return the results of a store as one table of Arrow."""
    _check(folder)
    parts = [read_part(path)[0] for path in list_parts(folder / RESULTS).values()]
    table = _concatenated([*parts, *_journaled(folder, failures=False)])
    if table is None:
        raise InputError(f"{folder}: there are no results in it yet.")
    return table


def _check(folder: Path) -> None:
    if not (folder / RESULTS).is_dir():
        raise InputError(f"{folder}: not a folder of sweep results.")


def _concatenated(tables: list[pa.Table]) -> pa.Table | None:
    if not tables:
        return None
    try:
        return pa.concat_tables([table.replace_schema_metadata() for table in tables])
    except pa.ArrowException as error:
        raise InputError(f"The parts have different columns: {error}") from error


def _journaled(folder: Path, *, failures: bool) -> list[pa.Table]:
    """Return what the journal has and no part, in the order of the plan."""
    journal = Journal.opened(folder / JOURNAL, reading=True)
    if journal is None:
        return []
    try:
        header = journal.header
        written = {part.number for part in list_parts(folder / RESULTS) if part.generation == header["generation"]}
        starts = {place: start for place, start in journal.scan() if place // header["part"] not in written}
        rows: list[list[Any]] = []
        for place in sorted(starts):
            prefix, made = journal.record(starts[place])
            if isinstance(made, str) and failures:
                rows.append([*prefix[:3], made])
            elif not isinstance(made, str) and not failures:
                rows += [[*prefix, *row] for row in made]
        return [as_table(FAILURE_COLUMNS if failures else header["columns"], rows)]
    finally:
        journal.close()


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame
