"""``vmsim sensitivity``: which parameters matter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    import pandas as pd

    from vmsim.sweeps.sensitivity import Sensitivity

_FILE = click.Path(path_type=Path)
_HEADINGS: Final = {
    "mu_star": "mean effect μ*",
    "mu_star_conf": "±",
    "mu": "signed μ",
    "sigma": "spread σ",
    "ST": "total ST",
    "ST_conf": "±",
    "S1": "alone S1",
    "S1_conf": "± ",
}


@click.command()
@click.argument("file", type=_FILE)
@click.option("--out", type=_FILE, metavar="DIR", help="Where results are kept; FILE with .results if left out.")
@click.option("--jobs", type=click.IntRange(1, 4096), metavar="N", help="Processes; all cores if left out.")
@click.option("--no-lock", is_flag=True, help="Do not lock DIR: for file systems without locks.")
@click.option("--scheduler", metavar="ADDRESS", help="Run on a Dask cluster: an address, or a TOML file for SLURM.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(file: Path, out: Path | None, jobs: int | None, no_lock: bool, scheduler: str | None, as_json: bool) -> int:
    """Say which parameters matter: Morris or Sobol indices.

    FILE is a TOML that names a scenario, ranges of its parameters, and a method. The points are run as those of a
    sweep and kept in DIR: the same command goes on where it was interrupted. DIR also gets indices.csv and a figure.
    """
    from vmsim.cli.sweep_screen import listening
    from vmsim.sweeps.executors import executor_at
    from vmsim.sweeps.sensitivity import Sensitivity

    asked = Sensitivity.load(file)
    out = out or file.with_suffix(".results")
    with listening(as_json=False) as listener:
        table = asked.run(out, jobs=jobs, lock=not no_lock, executor=executor_at(scheduler), listener=listener)
    _save(table, out)
    if as_json:
        _print_json(asked, table)
    else:
        _print(asked, table)
        click.echo(f"The table and the figure are {out / 'indices.csv'} and {out / 'indices.png'}.")
    return 0


def _print(asked: Sensitivity, table: pd.DataFrame) -> None:
    from vmsim.cli.screen import print_frame, say

    for response, mine in table.groupby("response", sort=False):
        shown = mine.drop(columns="response").rename(columns=_HEADINGS)
        title = f"{response}: {asked.method}, {len(asked.evaluations):,} evaluations, ± at {asked.level:.0%}"
        print_frame(title, shown)
        if not mine.select_dtypes("number").to_numpy().any():
            say(f"{response} is the same at all points.\n")


def _print_json(asked: Sensitivity, table: pd.DataFrame) -> None:
    from vmsim.cli.screen import print_json, rows_of

    facts: dict[str, Any] = {"method": asked.method, "evaluations": len(asked.evaluations), "level": asked.level}
    print_json(facts | {"indices": rows_of(table)})


def _save(table: pd.DataFrame, out: Path) -> None:
    from vmsim.analysis.indices import sensitivity_bars
    from vmsim.analysis.style import COLUMN, WIDE, figure, save
    from vmsim.base.files import replacing

    with replacing(out / "indices.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    responses = list(dict.fromkeys(table["response"]))
    width, height = min(WIDE, COLUMN * len(responses)), 0.9 + 0.3 * table["parameter"].nunique()
    with figure(width=width, height=height, columns=len(responses), squeeze=False) as (fig, axes):
        for place, response in enumerate(responses):
            sensitivity_bars(table[table["response"] == response], axes[0, place], legend=place == 0)
        save(fig, out / "indices.png", out / "indices.pdf")
