"""`Plot`: a figure, the data that it shows, and how both are written."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import vmsim.analysis.plain_matplotlib  # noqa: F401  (before matplotlib)

# isort: split

import matplotlib as mpl
from matplotlib.figure import Figure

from vmsim.analysis.style import COLUMN, RC, WIDE, figure, save
from vmsim.base.files import refuse_figure, refuse_overwrite, replacing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["WIDTHS", "Plot", "Sheet"]

WIDTHS: Final = {"column": COLUMN, "page": WIDE}
"""Inches: one column of a paper of ACM, IEEE or USENIX, or both."""


class Sheet(NamedTuple):
    """What a kind of figure makes of results.

    Attributes
    ----------
    table : DataFrame
        All that is drawn.
    draw : callable
        Draws it on axes[rows, columns].
    caption : str
        What is seen, in a sentence or two.
    rows, columns : int
        Axes.
    height : float
        Inches of a row.
    share : bool
        All axes have one scale.
    wide : bool
        It does not fit one column.
    """

    table: pd.DataFrame
    draw: Callable[[Any], None]
    caption: str
    rows: int = 1
    columns: int = 1
    height: float = 2.2
    share: bool = False
    wide: bool = False


class Plot:
    """A figure of a result: in a notebook it shows itself.

    Attributes
    ----------
    kind : str
        Of `vmsim.plotting.kinds.KINDS`.
    table : DataFrame
        The data that is drawn, with ``attrs["units"]``.
    caption : str
        What is seen, in a sentence or two.
    figure : matplotlib.figure.Figure
        To change before it is saved.
    """

    def __init__(self, kind: str, sheet: Sheet, width: str | None = None) -> None:
        self.kind = kind
        self.table = sheet.table
        self.caption = sheet.caption
        wide = sheet.wide or sheet.columns > 2
        inches = WIDTHS[width or ("page" if wide else "column")]
        share = {"sharex": True, "sharey": True} if sheet.share else {}
        size: dict[str, Any] = {
            "width": inches,
            "height": sheet.height * sheet.rows,
            "rows": sheet.rows,
            "columns": sheet.columns,
        }
        with figure(**size, squeeze=False, **share) as (made, axes):
            sheet.draw(axes)
        self.figure: Figure = made

    def save(self, *paths: str | Path, force: bool = False) -> Path:
        """Write the figure, and beside the first file the data as CSV.

        The same figure gives the same bytes.

        Parameters
        ----------
        *paths : path
            Names that end in .png, .pdf or .svg.
        force : bool, optional
            Replace files that are there.

        Returns
        -------
        Path
            The CSV file: the first name, ending in .csv.

        Raises
        ------
        InputError
            A name that ends otherwise, a file is there and `force` is false, or it cannot be written.
        """
        files = [Path(path) for path in paths]
        beside = files[0].with_suffix(".csv")
        check(files, force=force)
        save(self.figure, *files, force=force)
        with replacing(beside, force=force) as temporary:
            self.table.to_csv(temporary, index=False, lineterminator="\n")
        return beside

    def __repr__(self) -> str:
        return f"<Plot {self.kind}: {self.caption}>"

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        with mpl.rc_context(RC):
            self.figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
        return data.getvalue()


def check(files: Sequence[Path], *, force: bool) -> None:
    """Refuse to write a figure to files, and its data beside the first; to be asked before long work.

    Raises
    ------
    InputError
        As of `Plot.save`.
    """
    for path in files:
        refuse_figure(path, force=force)
    refuse_overwrite(files[0].with_suffix(".csv"), force=force)
