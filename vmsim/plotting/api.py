"""`vmsim.plot`: a figure of a run, a comparison or a sweep in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from vmsim import plugins
from vmsim.base.errors import InputError, closest, listed, nearest
from vmsim.base.files import printable
from vmsim.plotting.kinds import KINDS, RUN, SWEEP
from vmsim.record.comparison import Comparison
from vmsim.record.result import Result

if TYPE_CHECKING:
    import pandas as pd

    from vmsim.plotting.plot import Plot

__all__ = ["Source", "opened", "plot"]

Source: TypeAlias = "Result | Comparison | pd.DataFrame | str | Path"
"""Results, or where they were kept."""


def opened(source: Source) -> Result | Comparison | pd.DataFrame:
    """Return results: as they are, or read from the folder of a run, of a comparison or of a sweep.

    Raises
    ------
    InputError
        The folder has none of these in it, or a file there is missing or damaged.
    """
    if not isinstance(source, str | Path):
        return source
    from vmsim.lookups import load
    from vmsim.sweeps.reader import is_store
    from vmsim.sweeps.tables import read_results

    folder = Path(source)
    if is_store(folder):
        return read_results(folder)
    return load(folder)


def plot(
    source: Source,
    kind: str | None = None,
    *,
    beside: Result | str | Path | None = None,
    vms: Sequence[str] = (),
    x: str | None = None,
    y: str | None = None,
    by: str | None = None,
    value: str | None = None,
    where: Mapping[str, Any] | None = None,
    width: str | None = None,
) -> Plot:
    """Draw results.

    Parameters
    ----------
    source : Result, Comparison, DataFrame or path
        A run, a comparison, or the results of a sweep as `vmsim.sweep` returns them; or the folder of any of these.
    kind : str, optional
        Of runs and comparisons ``breakdown`` (the default), ``walk``, ``pool``, ``memory``, ``huge`` or ``latency``; of
        sweeps ``heatmap`` or ``lines``, by default whichever has room for what is varied.
    beside : Result or path, optional
        Another run, drawn beside the first on the same scale.
    vms : sequence of str, optional
        Only of these VMs.
    x, y, by : str, optional
        Of a sweep: which parameter goes along x and y, and which has a panel or a line for each value.
    value : str, optional
        Of a sweep: the column that is drawn; ``cycles_per_access`` by default.
    where : mapping of str to object, optional
        Of a sweep: only the points with these values of its parameters.
    width : {"column", "page"}, optional
        3.35 or 7 inches, one column of a paper or both; by default what the figure needs.

    Returns
    -------
    Plot
        It shows itself in a notebook; `Plot.save` writes it and its data, `Plot.figure` is matplotlib's.

    Raises
    ------
    InputError
        There is no such kind, VM, parameter or column, or nothing of it in the results.

    Examples
    --------
    >>> vmsim.plot("runs/a", "latency", beside="runs/b").save("latency.pdf")  # doctest: +SKIP
    """
    found = opened(source)
    if kind is not None and kind not in KINDS:
        raise InputError(
            f"There is no figure {kind!r}. {nearest(kind, KINDS)}", key="kind", nearest=closest(kind, KINDS)
        )
    if isinstance(found, Result | Comparison):
        wrong = [name for name, given in {"x": x, "y": y, "by": by, "value": value, "where": where}.items() if given]
        _refuse(kind, RUN, "a run", wrong)
        return _of_runs(found, kind or "breakdown", beside, vms, width, source)
    _refuse(kind, SWEEP, "a sweep", ["beside"] if beside is not None else [])
    return _of_sweep(found, kind, {"x": x, "y": y, "by": by}, value, vms, where or {}, width)


def _refuse(kind: str | None, of: str, what: str, wrong: Sequence[str]) -> None:
    """Refuse a kind of figure, and options, that results do not have."""
    ours = [name for name, each in KINDS.items() if each.of == of]
    if kind is not None and kind not in ours:
        raise InputError(f"{kind} cannot be drawn of {what}. Expected {listed(ours, 'or')}.", key="kind")
    if wrong:
        raise InputError(f"{wrong[0]}: it has no meaning for {what}.", key=wrong[0])


def _of_runs(
    found: Result | Comparison,
    kind: str,
    beside: Result | str | Path | None,
    vms: Sequence[str],
    width: str | None,
    source: Source,
) -> Plot:
    from vmsim.plotting.parts import Drawn
    from vmsim.plotting.plot import Plot

    parts = Drawn.of(found, vms)
    if beside is not None:
        other = opened(beside)
        if not (isinstance(found, Result) and isinstance(other, Result)):
            raise InputError("Two runs are drawn side by side; of a comparison take the folder of one mode in it.")
        names = _names(source, beside)
        parts = [*Drawn.of(found, vms, names[0]), *Drawn.of(other, vms, names[1])]
    return Plot(kind, plugins.resolve(KINDS[kind].target)(parts), width)


def _names(first: object, second: object) -> tuple[str, str]:
    """Return what two runs are called: the parts of their folders' names that differ, or A and B."""
    if isinstance(first, str | Path) and isinstance(second, str | Path):
        names = [printable(Path(each).name) for each in (first, second)]
        if names[0] != names[1] and all(names):
            return names[0], names[1]
    return "A", "B"


def _of_sweep(
    table: pd.DataFrame,
    kind: str | None,
    roles: dict[str, str | None],
    value: str | None,
    vms: Sequence[str],
    where: Mapping[str, Any],
    width: str | None,
) -> Plot:
    from vmsim.plotting.plot import Plot
    from vmsim.plotting.sweeps import choose

    chosen = choose(table, value=value or "cycles_per_access", vms=vms, where=where)
    kind = kind or ("heatmap" if len(chosen.names) > 1 else "lines")
    return Plot(kind, plugins.resolve(KINDS[kind].target)(chosen, roles["x"], roles["y"], roles["by"]), width)
