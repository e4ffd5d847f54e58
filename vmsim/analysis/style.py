"""One look for all figures: a column of a paper, colours for colour-blind readers, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import vmsim.analysis.plain_matplotlib  # noqa: F401  (before matplotlib)

# isort: split

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from vmsim.base.files import refuse_figure, replacing

__all__ = ["COLUMN", "PALETTE", "RC", "WIDE", "figure", "save"]

COLUMN: Final = 3.35
"""Inches: one column of a two-column paper."""
WIDE: Final = 7.0
"""Inches: both columns."""

PALETTE: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Okabe and Ito's colours, the most distinct first."""

RC: Final[Any] = {
    # nothing of the user's own settings: a figure is the same everywhere
    **{key: value for key, value in mpl.rcParamsDefault.items() if not key.startswith("backend")},
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters everywhere
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.0,
    "legend.frameon": False,
    "legend.handlelength": 1.0,
    "legend.handleheight": 0.9,
    "legend.columnspacing": 1.2,
    "legend.labelspacing": 0.35,
    "axes.prop_cycle": cycler(color=PALETTE),
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "vmsim",
}

_NO_DATES: Final[dict[str, dict[str, None]]] = {  # of each of FIGURE_FORMATS
    ".png": {"Software": None},
    ".pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    ".svg": {"Creator": None, "Date": None},
}


@contextmanager
def figure(
    *, width: float = COLUMN, height: float = 2.2, rows: int = 1, columns: int = 1, **options: Any
) -> Iterator[tuple[Figure, Any]]:
    """Give a figure and its axes (one, or an array of them) in the common style; draw and `save` inside the block.

    Parameters
    ----------
    width, height : float, optional
        Inches.
    rows, columns : int, optional
        Axes; with `options` as of `matplotlib.figure.Figure.subplots`.
    """
    with mpl.rc_context(RC):
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(made)
        axes: Axes | Any = made.subplots(rows, columns, **options)
        yield made, axes


def save(fig: Figure, *paths: Path, force: bool = True) -> None:
    """Write a figure to files whose suffixes say the format; the same figure gives the same bytes.

    Parameters
    ----------
    fig : Figure
    *paths : Path
    force : bool, optional
        Replace files that are there.

    Raises
    ------
    InputError
        A suffix other than .png, .pdf and .svg, or the folder is missing or read-only, or the disk is full.
    """
    for path in paths:
        refuse_figure(path, force=force)
        with replacing(path, force=force) as temporary, mpl.rc_context(RC):
            fig.savefig(temporary, format=path.suffix[1:], metadata=_NO_DATES[path.suffix])
