"""An experiment: a sweep, the table of its results, and a figure drawn from that table.

::

    experiments/NAME/sweep.toml    the points
    experiments/NAME/figure.py     EXPERIMENT, data(), draw(table, axes)
    results/NAME/table.csv         the results, a row for each point and VM, in the order of the points
    results/NAME/figure.json       digests of what the figure was drawn from, and of its files
    runs/NAME                      the store of the sweep: not kept with the code, can go at any time
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vmsim.errors import InputError
from vmsim.files import replacing, sha256
from vmsim.sweeps.points import MODEL
from vmsim.sweeps.spec import Sweep

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Experiment"]

_FORMATS: Final = (".png", ".pdf")


class Experiment:
    """An experiment by its folder.

    Parameters
    ----------
    folder : path
        ``experiments/NAME``. Results are in ``results/NAME`` and ``runs/NAME`` beside ``experiments``.
    figure : str, optional
        Name of the figure's files, that of the experiment if left out.
    **layout
        Of the figure's axes, as of `vmsim.analysis.style.figure`.
    """

    def __init__(self, folder: str | Path, figure: str | None = None, **layout: Any) -> None:
        self.folder = Path(folder).absolute()
        self.name = self.folder.name
        self._figure = figure or self.name
        self._layout = layout
        root = self.folder.parent.parent
        self.results = root / "results" / self.name
        self.store = root / "runs" / self.name

    @cached_property
    def sweep(self) -> Sweep:
        """The points."""
        return Sweep.load(self.folder / "sweep.toml")

    @property
    def file(self) -> Path:
        """The table of results."""
        return self.results / "table.csv"

    def run(self, **options: Any) -> pd.DataFrame:
        """Simulate the points that the store lacks, and write the table.

        Parameters
        ----------
        **options
            As of `vmsim.sweeps.run_sweep`.

        Raises
        ------
        InputError
            A point failed or ran out of memory, or files cannot be written. The table is then as it was.
        KeyboardInterrupt
            Ctrl-C. What was finished is in the store.
        """
        from vmsim.sweeps.driver import run_sweep
        from vmsim.sweeps.tables import read_points

        if run_sweep(self.sweep, self.store, **options).interrupted:
            raise KeyboardInterrupt
        table = read_points(self.store, self.sweep)
        missing = len({*self._points()} - {*table["point"]})
        if missing:
            raise InputError(
                f"{self.name}: {missing} points failed; vmsim results ls --failures {self.store} says why."
            )
        if not table["finished"].all():
            raise InputError(f"{self.name}: a VM did not run to its end; a simulated machine ran out of memory.")
        self.results.mkdir(parents=True, exist_ok=True)
        with replacing(self.file) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
        return self.table()

    def table(self) -> pd.DataFrame:
        """Return the results.

        Raises
        ------
        InputError
            There are none yet.
        """
        import pandas as pd

        if not self.file.is_file():
            raise InputError(f"{self.file}: no such table. Make it: python {self.folder / 'figure.py'}")
        with self.file.open(encoding="utf-8", newline="") as file:
            names, *rows = csv.reader(file)
        columns = zip(names, zip(*rows, strict=True), strict=True)
        return pd.DataFrame({name: list(texts) if name == "point" else _typed(texts) for name, texts in columns})

    def is_run(self) -> bool:
        """Whether the table has the results of exactly the points of the sweep, as this model simulates them."""
        return self.file.is_file() and [*dict.fromkeys(self.table()["point"])] == self._points()

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
        self.stamp(*paths)
        return paths[0]

    def stamp(self, *paths: Path) -> None:
        """Note what files in the folder of results were made from."""
        stamp = {"from": self._inputs(), "files": {path.name: sha256(path) for path in paths}}
        with replacing(self.results / "figure.json") as temporary:
            temporary.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")

    def _points(self) -> list[str]:
        return [point.identity for point in self.sweep.points()]

    def _inputs(self) -> dict[str, str]:
        found = {path.name: sha256(path) for path in sorted(self.folder.iterdir()) if path.is_file()}
        results = {self.file.name: sha256(self.file)} if self.file.is_file() else {"model": str(MODEL)}
        return found | results | {"vmsim.analysis": _drawing_code()}


def _typed(texts: Sequence[str]) -> list[Any]:
    """Return a column's values as whole numbers, truth values or numbers, exact to the last bit, else as text."""
    if {*texts} <= {"True", "False"}:
        return [text == "True" for text in texts]
    for kind in (int, float):
        with suppress(ValueError):
            return [kind(text) for text in texts]
    return list(texts)


def _drawing_code() -> str:
    import vmsim.analysis

    digest = hashlib.sha256()
    for path in sorted(Path(vmsim.analysis.__path__[0]).glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
