"""`Comparison`: one scenario under several paging modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vmsim.record import html
from vmsim.record.accessors import Tables
from vmsim.record.columns import COLUMNS, MODE, attributes
from vmsim.record.folder import replacing_folder, write_manifest
from vmsim.record.outcome import Ending
from vmsim.record.result import Result

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparison"]

_FORM = "vmsim comparison 1"


class Comparison(Tables):
    """The results of one scenario under several paging modes, side by side.

    Its tables are those of `Result` with a column `mode`, one mode after the other: `summary`, `cycles`, `exits`, …

    Parameters
    ----------
    results : mapping of str to Result
        By mode, in the order to show.
    notes : sequence of str, optional
        What a reader must know to judge it: modes that the CPU does not have, for example.
    """

    def __init__(self, results: Mapping[str, Result], notes: Sequence[str] = ()) -> None:
        self.results = dict(results)
        self.notes = tuple(notes)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            It is no folder of a comparison, or a file in it is missing or damaged.
        """
        from vmsim.record.folder import read_manifest

        path = Path(path)
        manifest = read_manifest(path, _FORM)
        return cls({mode: Result.load(path / mode) for mode in manifest["modes"]}, manifest["notes"])

    def table(self, name: str) -> pd.DataFrame:
        """Return a table of all modes by its name, as of `Result.table`."""
        import pandas as pd

        parts = {mode: result.table(name) for mode, result in self.results.items()}
        if name != "summary":
            for mode, part in parts.items():
                parts[mode] = part.copy()
                parts[mode].insert(0, "mode", pd.Series([mode] * len(part), dtype="str"))
        table = pd.concat(parts.values(), ignore_index=True)
        table.attrs = attributes(map(str, table.columns), {"mode": MODE, **COLUMNS[name]})
        return table

    @property
    def warmed(self) -> bool:
        """Whether the scenario has a warm-up, which no table counts."""
        return any(result.warmed for result in self.results.values())

    @property
    def ending(self) -> Ending | None:
        """Why the first simulation that stopped before its VMs were done did so, or None."""
        return next((result.ending for result in self.results.values() if result.ending), None)

    def save(
        self, path: str | Path, *, force: bool = False, also: Callable[[Path], None] = lambda folder: None
    ) -> None:
        """Write a folder with a run directory for each mode, and ``summary.csv`` of all modes.

        Parameters
        ----------
        path : path
            Absent or an empty folder, or with `force` one of an earlier comparison.
        force : bool, optional
            Replace an earlier comparison.
        also : callable, optional
            Writes more files into the folder that it is given: figures, for example.

        Raises
        ------
        InputError
            It cannot be written there; then nothing is.
        """
        with replacing_folder(Path(path), force=force) as folder:
            self._write(folder)
            also(folder)
            self._seal(folder)

    def _write(self, folder: Path) -> None:
        """Write a run directory for each mode into a folder that exists, and ``summary.csv`` of all modes."""
        for mode, result in self.results.items():
            result.save(folder / mode)
        self.summary.to_csv(folder / "summary.csv", index=False, lineterminator="\n")

    def _seal(self, folder: Path) -> None:
        """Write the manifest of a folder that now has all its files."""
        from vmsim.record.directory import FORMAT, provenance

        facts = {**provenance(), "modes": list(self.results), "notes": list(self.notes), "runs": FORMAT}
        write_manifest(folder, _FORM, facts)

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(self.results)}>"

    def _repr_html_(self) -> str:
        import html as text

        notes = "".join(f"<p>{text.escape(note)}</p>" for note in self.notes)
        return notes + html.page(self.summary, self.cycles, self.ending)
