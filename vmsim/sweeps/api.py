"""`vmsim.sweep`: a sweep in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmsim.api import scenario_of
from vmsim.base.progress import progress_bar, wants_progress
from vmsim.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

    from vmsim.sweeps.driver import Listener

__all__ = ["listening", "sweep"]


def sweep(
    base: Scenario | Mapping[str, Any] | str | Path,
    axes: Mapping[str, Iterable[Any]] | None = None,
    *,
    replicates: int = 1,
    out: str | Path | None = None,
    jobs: int | None = None,
    retries: int = 1,
    progress: bool | Listener | None = None,
    **tables: Any,
) -> pd.DataFrame:
    """Simulate a scenario at all combinations of some values, in parallel.

    Parameters
    ----------
    base : Scenario, mapping or path
        What is varied: a scenario, its tables as a dictionary, or a scenario file.
    axes : mapping of str to iterable
        Values by dotted key (``"host.pool.min"``, ``"vm.mode"``), or by a name that `names` gives one.
    replicates : int, optional
        Repetitions of each point, with seeds of their own.
    out : path, optional
        A folder that keeps the results, so that no point is run twice. Without it they are kept nowhere.
    jobs : int, optional
        Processes; all cores if left out, and 1 is this process. Processes are spawned: a script that calls this
        needs the usual ``if __name__ == "__main__":``.
    retries : int, optional
        How often a point that failed is tried again.
    progress : bool or callable, optional
        Show a bar on a terminal or in a notebook; nothing where output goes into a pipe. By default only in notebooks.
        A callable is given everything that happens; see `vmsim.sweeps.run_sweep`.
    **tables
        The other keys of a sweep file: ``names``, ``zip``, ``list``, ``sample``, ``derive``, ``where``,
        ``invalid``, ``seeds``.

    Returns
    -------
    DataFrame
        Tidy: one row for each point, replicate and VM, with the axes as columns, in the order of the points.

    Raises
    ------
    InputError
        A point's scenario cannot be, or `out` cannot be written.
    RuntimeError
        Points failed; the message has the first traceback. What succeeded is in `out`.
    KeyboardInterrupt
        Ctrl-C. What was finished is in `out`.
    """
    from vmsim.sweeps.driver import run_sweep
    from vmsim.sweeps.sweep import Sweep
    from vmsim.sweeps.tables import read_failures, read_points

    wanted = Sweep.of(scenario_of(base), axes, replicates=replicates, **tables)
    with tempfile.TemporaryDirectory(prefix="vmsim-") as nowhere:
        folder = Path(out) if out is not None else Path(nowhere, "sweep")
        with listening(progress) as listener:
            summary = run_sweep(wanted, folder, jobs=jobs, retries=retries, listener=listener)
        if summary.interrupted:
            raise KeyboardInterrupt
        table = read_points(folder, wanted)
        if table["point"].nunique() < summary.points:
            failures = read_failures(folder)
            raise RuntimeError(f"{len(failures)} points failed; the first:\n{failures['failure'].iloc[0]}")
        return table


@contextmanager
def listening(progress: bool | Listener | None) -> Iterator[Listener | None]:
    """Give who is told of what happens: as `sweep` takes it, a bar, a callable, or nobody."""
    if callable(progress):
        yield progress
    elif wants_progress(progress):
        with progress_bar("sweep", "points") as show:
            yield _counting(show) if show else None
    else:
        yield None


def _counting(show: Callable[[str, int, int], None]) -> Listener:
    """Return what moves a bar on with every point that is done or has failed."""
    points = done = 0

    def listen(event: dict[str, Any]) -> None:
        nonlocal points, done
        match event["event"]:
            case "planned":
                points, done = event["points"] - event["recorded"], 0
            case "done" | "failed":
                done += 1
            case _:
                return
        show("", done, points)

    return listen
