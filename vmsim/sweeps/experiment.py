"""An experiment: a sweep, the table of its results, and a figure drawn from that table.

::

    experiments/NAME/sweep.toml    the points
    experiments/NAME/figure.py     EXPERIMENT, data(), draw(table, axes)
    results/NAME/table.csv         the results, a row for each point and VM, in the order of the points
    …/sweep-PART.toml              more points, where they vary other keys; their results are in table-PART.csv
    results/NAME/figure.json       digests of what the figure was drawn from, and of its files
    runs/NAME                      the store of the sweep: not kept with the code, can go at any time

One whose rows are no points of a sweep has no sweep.toml; its figure.py says what makes the table (`Made`).
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vmsim.base.errors import InputError
from vmsim.base.files import replacing, sha256
from vmsim.sweeps.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Experiment", "Made"]

_FORMATS: Final = (".png", ".pdf")


class Made(NamedTuple):
    """What makes the table of an experiment without a sweep."""

    points: Callable[[], list[str]]
    """Gives the identities of the rows that the table should have, in its column `point`."""
    simulate: Callable[[int | None], pd.DataFrame]
    """Gives the table, by so many processes (None: all cores)."""


class Experiment:
    """An experiment by its folder.

    Parameters
    ----------
    folder : path
        ``experiments/NAME``. Results are in ``results/NAME`` and ``runs/NAME`` beside ``experiments``.
    figure : str, optional
        Name of the figure's files, that of the experiment if left out.
    made : Made, optional
        What makes the table, in place of a sweep.
    **layout
        Of the figure's axes, as of `vmsim.analysis.style.figure`.
    """

    def __init__(
        self, folder: str | Path, figure: str | None = None, *, made: Made | None = None, **layout: Any
    ) -> None:
        self.folder = Path(folder).absolute()
        self.name = self.folder.name
        self._figure = figure or self.name
        self._made = made
        self._layout = layout
        root = self.folder.parent.parent
        self.results = root / "results" / self.name
        self.store = root / "runs" / self.name

    @cached_property
    def sweeps(self) -> dict[str, Sweep]:
        """The points of each part; that of ``sweep.toml`` has no name."""
        files = [self.folder / "sweep.toml", *sorted(self.folder.glob("sweep-*.toml"))]
        return {file.stem.removeprefix("sweep").removeprefix("-"): Sweep.load(file) for file in files}

    @property
    def sweep(self) -> Sweep:
        """The points of the part that has no name."""
        return self.sweeps[""]

    @property
    def file(self) -> Path:
        """The table of results of the part that has no name."""
        return self._file("")

    def run(self, **options: Any) -> pd.DataFrame:
        """Simulate the points that the stores lack, write the tables, and return the first.

        Parameters
        ----------
        **options
            As of `vmsim.sweeps.run_sweep`; without a sweep, `jobs` alone counts.

        Raises
        ------
        InputError
            A point failed or ran out of memory, or files cannot be written. The table is then as it was.
        KeyboardInterrupt
            Ctrl-C. What was finished is in the store.
        """
        if self._made:
            self._keep("", self._made.simulate(options.get("jobs")))
            return self.table()
        for part in self.sweeps:
            self._run(part, options)
        return self.table()

    def _run(self, part: str, options: dict[str, Any]) -> None:
        from vmsim.sweeps.driver import run_sweep
        from vmsim.sweeps.tables import read_points

        store = self.store.with_name("-".join(filter(None, (self.name, part))))
        summary = run_sweep(self.sweeps[part], store, **options)
        if summary.interrupted:
            raise KeyboardInterrupt(summary.kept(store))
        table = read_points(store, self.sweeps[part])
        missing = len({*self._points(part)} - {*table["point"]})
        if missing:
            raise InputError(f"{self.name}: {missing} points failed; vmsim results ls --failures {store} says why.")
        if not table["finished"].all():
            raise InputError(f"{self.name}: a VM did not run to its end; a simulated machine ran out of memory.")
        self._keep(part, table)

    def _keep(self, part: str, table: pd.DataFrame) -> None:
        self.results.mkdir(parents=True, exist_ok=True)
        with replacing(self._file(part)) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")

    def table(self, part: str = "") -> pd.DataFrame:
        """Return the results.

        Parameters
        ----------
        part : str, optional
            PART of ``sweep-PART.toml``; that of ``sweep.toml`` if left out.

        Raises
        ------
        InputError
            There are none yet.
        """
        import pandas as pd

        path = self._file(part)
        if not path.is_file():
            raise InputError(f"{path}: no such table. Make it: python {self.folder / 'figure.py'}")
        with path.open(encoding="utf-8", newline="") as file:
            names, *rows = csv.reader(file)
        columns = zip(names, zip(*rows, strict=True), strict=True)
        return pd.DataFrame({name: list(texts) if name == "point" else _typed(texts) for name, texts in columns})

    def is_run(self) -> bool:
        """Whether the tables have the results of exactly the points of the sweeps, by this model, and their figures."""
        if self._made:
            return self.file.is_file() and [*self.table()["point"]] == self._made.points()
        return all(
            self._file(part).is_file()
            and [*dict.fromkeys(self.table(part)["point"])] == self._points(part)
            and sweep.figures.keys() <= {*self.table(part)}
            for part, sweep in self.sweeps.items()
        )

    def is_drawn(self) -> bool:
        """Whether the figure is that of the table, of the experiment's files, and of the code that draws."""
        try:
            stamp = json.loads((self.results / "figure.json").read_bytes())
            files: dict[str, str] = stamp["files"]
            return bool(stamp["from"] == self._inputs() and files) and all(
                sha256(self.results / Path(name).name) == digest for name, digest in files.items()
            )
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False

    def paint(self, data: Callable[[], Any], draw: Callable[[Any, Any], None]) -> Path:
        """Draw the figure from the table into the folder of results, and return the PNG.

        Parameters
        ----------
        data : callable
            Gives what to draw.
        draw : callable
            Is given that and the axes.
        """
        from vmsim.analysis.style import figure

        with figure(**self._layout) as (made, axes):
            draw(data(), axes)
            return self.save(made, self._figure)

    def save(self, figure: Figure, name: str) -> Path:
        """Write a figure as PNG and PDF into the folder of results, with a note of what it was drawn from.

        Returns
        -------
        Path
            The PNG.
        """
        from vmsim.analysis.style import save

        paths = [self.results / f"{name}{suffix}" for suffix in _FORMATS]
        save(figure, *paths)
        stamp = {"from": self._inputs(), "files": {path.name: sha256(path) for path in paths}}
        with replacing(self.results / "figure.json") as temporary:
            temporary.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
        return paths[0]

    def _file(self, part: str) -> Path:
        return self.results / f"{'-'.join(filter(None, ('table', part)))}.csv"

    def _points(self, part: str) -> list[str]:
        return [point.identity for point in self.sweeps[part].points()]

    def _inputs(self) -> dict[str, str]:
        found = {path.name: sha256(path) for path in sorted(self.folder.iterdir()) if path.is_file()}
        results = {path.name: sha256(path) for path in sorted(self.results.glob("table*.csv"))}
        return found | results | {"vmsim.analysis": _drawing_code()}


def _typed(texts: Sequence[str]) -> list[Any]:
    """Return a column's values as whole numbers, truth values or numbers, exact to the last bit, else as text."""
    if {*texts} <= {"True", "False"}:
        return [text == "True" for text in texts]
    for kind in (int, float):
        with suppress(ValueError):  # not of this kind: the next is tried
            return [kind(text) for text in texts]
    return list(texts)


def _drawing_code() -> str:
    import vmsim.analysis

    digest = hashlib.sha256()
    for path in sorted(Path(vmsim.analysis.__path__[0]).glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
