"""What each mechanism does to predictions of published measurements: how far they lie off with it and without.

The studies are those that take seconds (`vmsim.validation.ablation`). Mechanisms that presets have are taken away;
those below, of which no source says how much a measured machine had, are added. A dot is the median over a study's
predictions of how far each lies off, in bands: 1 is the edge of what agrees.

    python experiments/ablation/figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pandas as pd

from vmsim.analysis.style import PALETTE, WIDE
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment, Made
from vmsim.sweeps.points import identity_of
from vmsim.validation.ablation import MECHANISMS, STUDIES, Row, ablate, pairs

KEPT, ADDED = PALETTE[0], PALETTE[5]


def points() -> list[str]:
    """Return the identities of the rows: of each study's scenario as a mechanism changes it."""
    return [identity_of(scenario) for _, _, scenario in pairs()]


def simulate(jobs: int | None) -> pd.DataFrame:
    """Return the table, a row for each study and mechanism that concerns it."""
    table = pd.DataFrame(ablate(jobs=jobs), columns=Row._fields).round(6)
    table.insert(0, "point", points())
    return table


EXPERIMENT: Final = Experiment(
    Path(__file__).parent,
    made=Made(points, simulate),
    width=WIDE,
    height=2.8,
    columns=len(STUDIES),
    sharex=True,
    sharey=True,
)


def data() -> pd.DataFrame:
    """Return the table."""
    return EXPERIMENT.table()


def draw(table: pd.DataFrame, axes: Any) -> None:
    """Draw a panel for each study, a line for each mechanism, from what is without it to what is with it."""
    places = {mechanism: len(MECHANISMS) - place for place, mechanism in enumerate(MECHANISMS)}
    for study, ax in zip(STUDIES, axes, strict=True):
        mine = table[table["study"] == study]
        ax.axvline(1, color="black", linewidth=0.6, linestyle=":")
        for row in mine.itertuples():
            at = places[str(row.mechanism)]
            color, mark = (KEPT, "o") if row.kept else (ADDED, "s")
            ax.plot([row.error_without, row.error_with], [at, at], color=color, linewidth=1)
            ax.plot(row.error_without, at, mark, color=color, markerfacecolor="white", markersize=4)
            ax.plot(row.error_with, at, mark, color=color, markersize=3)
            ax.annotate(
                f"{row.agree_without} → {row.agree_with}",
                (1.02, at),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize=6.5,
            )
        ax.set_title(f"{study}\n{mine['of'].iloc[0]} rows", fontsize=7)
        ax.set_yticks([*places.values()], [*places])
        ax.grid(axis="y")
    axes[0].set_xlim(0, 1.1 * table[["error_with", "error_without"]].to_numpy().max())
    axes[len(axes) // 2].set_xlabel(
        "median error, in bands, without (open) and with (filled); beside it, how many rows agree\n"
        "blue circles: presets have it; orange squares: none has"
    )


if __name__ == "__main__":
    make(EXPERIMENT, data, draw)
