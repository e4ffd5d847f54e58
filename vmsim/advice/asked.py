"""`Asked`: what a question is asked of, and how it has points simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmsim.base.errors import InputError
from vmsim.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

    from vmsim.sweeps.driver import Listener

__all__ = ["Asked", "last_that_holds"]


@dataclass(frozen=True)
class Asked:
    """A question's scenario and options.

    Attributes
    ----------
    scenario : Scenario
    out : Path
        The folder of the sweep.
    limit : str
        As it was given, or the question's own.
    seeds : int
        Repetitions of each point, with the same seeds at all points.
    options : dict of str to object
        The question's others.
    jobs : int or None
        Processes.
    listener : callable or None
        Told of what happens.
    """

    scenario: Scenario
    out: Path
    limit: str
    seeds: int
    options: Mapping[str, Any]
    jobs: int | None
    listener: Listener | None

    def simulate(self, axes: Mapping[str, Iterable[Any]] | None = None, **tables: Any) -> pd.DataFrame:
        """Simulate those of some points that the folder lacks, and return the results of all of them.

        Parameters
        ----------
        axes, **tables
            As of `vmsim.sweep`.

        Returns
        -------
        DataFrame
            A row for each point, replicate and VM.

        Raises
        ------
        InputError
            A point's scenario cannot be, a point failed, or the folder cannot be written.
        KeyboardInterrupt
            Ctrl-C. What was finished is in the folder.
        """
        from vmsim.base.files import printable
        from vmsim.sweeps.driver import run_sweep
        from vmsim.sweeps.sweep import Sweep
        from vmsim.sweeps.tables import read_points

        wanted = Sweep.of(self.scenario, axes, replicates=self.seeds, seeds="common", **tables)
        summary = run_sweep(wanted, self.out, jobs=self.jobs, again=True, listener=self.listener)
        if summary.interrupted:
            raise KeyboardInterrupt(summary.kept(self.out))
        table = read_points(self.out, wanted)
        missing = summary.points - table["point"].nunique()
        if missing:
            failed = "1 point" if missing == 1 else f"{missing} points"
            raise InputError(f"{failed} failed; vmsim results ls --failures {printable(self.out)} says why.")
        return table

    def factor(self) -> float:
        """Return the limit as a multiple.

        Raises
        ------
        InputError
            It is no number, or not above 1.
        """
        try:
            value = float(self.limit)
        except ValueError:
            value = 0.0
        if not 1 < value < float("inf"):
            raise InputError(f"limit: found {self.limit!r}, expected a multiple above 1, for example 1.5.")
        return value


def last_that_holds(holds: Callable[[int], bool], first: int, most: int) -> int:
    """Return the largest number of 1 … `most` for which something holds that does so up to some number; 0: for none.

    It is looked for from `first` on: doubled while it holds, then between the last that did and the first that did
    not. So it is asked about log₂ `most` times, always in the same order.
    """
    low, high, place = 0, most + 1, min(max(first, 1), most)
    while high - low > 1:
        if holds(place):
            low = place
            place = min(2 * place, most) if high > most else (low + high) // 2
        else:
            high = place
            place = (low + high) // 2
    return low
