"""What the figure.py of an experiment does when it is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmsim.cli.sweep_screen import listening
from vmsim.sweeps.experiment import Experiment

__all__ = ["make"]


def make(
    experiment: Experiment, data: Callable[[], Any], draw: Callable[[Any, Any], None], *, jobs: int | None = None
) -> Path:
    """Simulate what is not done yet, showing progress, draw, and return the figure's PNG.

    Parameters
    ----------
    experiment : Experiment
    data, draw : callable
        As of `Experiment.paint`.
    jobs : int, optional
        Processes that simulate; all cores if left out.
    """
    with listening(as_json=False) as listener:
        experiment.run(listener=listener, jobs=jobs)
    path = experiment.paint(data, draw)
    print(f"The figure is {path}.")
    return path
