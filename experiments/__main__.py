"""Make the figures of all experiments, or of those named, again: only what is out of date.

    python -m experiments [NAME]… [--all] [--jobs N]

A figure is drawn from the table in ``results/NAME``; nothing is simulated for it unless the table is not that of the
sweep any more: points were changed, or the model was.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import click

from vmsim.base.errors import InputError, nearest
from vmsim.cli.experiment import make
from vmsim.sweeps.experiment import Experiment

HERE: Final = Path(__file__).resolve().parent


def experiments() -> dict[str, Experiment]:
    """Return all experiments by name."""
    return {path.parent.name: _experiment(path) for path in sorted(HERE.glob("*/figure.py"))}


def _experiment(figure: Path) -> Experiment:
    """Return the experiment of a figure.py, which says itself what makes its table where there is no sweep."""
    if (figure.parent / "sweep.toml").is_file():
        return Experiment(figure.parent)
    made: Experiment = runpy.run_path(str(figure))["EXPERIMENT"]
    return made


def refresh(experiment: Experiment, *, all_: bool = False, jobs: int | None = None) -> str:
    """Make what is out of date of an experiment; return what was done."""
    is_run = experiment.is_run()
    if is_run and experiment.is_drawn() and not all_:
        return "up to date"
    figure = SimpleNamespace(**runpy.run_path(str(experiment.folder / "figure.py")))
    if is_run:
        figure.EXPERIMENT.paint(figure.data, figure.draw)
        return "drawn"
    make(figure.EXPERIMENT, figure.data, figure.draw, jobs=jobs)
    return "simulated and drawn"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Draw figures that are up to date, too.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes that simulate: all cores if left out.")
def main(names: tuple[str, ...], all_: bool, jobs: int | None) -> None:
    """Make the figures of all experiments, or of NAMES, again: only what is out of date."""
    known = experiments()
    for name in names or known:
        if name not in known:
            raise click.ClickException(f"There is no experiment {name!r}. {nearest(name, known)}")
        try:
            click.echo(f"{name}: {refresh(known[name], all_=all_, jobs=jobs)}")
        except InputError as error:
            raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main(prog_name="python -m experiments")
