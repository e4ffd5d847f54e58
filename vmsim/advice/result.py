"""`Advice`: the answer to a question, and what it stands on."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Advice", "interval"]


@dataclass(frozen=True, eq=False)
class Advice:
    """An answer from simulation.

    Attributes
    ----------
    question : str
        Which question it answers.
    answer : str
        A sentence or two, with the number and its interval.
    table : DataFrame
        What was tried: a row for each point, with means over the seeds and the ends of their intervals, ``low`` and
        ``high``.
    sweep : Path
        The folder of the sweep behind it (`vmsim.sweeps.read_results`).
    facts : dict of str to object
        The same as JSON types: what is advised (None: nothing can be), the number with ``low`` and ``high``, the limit.
    notes : tuple of str
        What was left out, and why.
    level : float
        Of confidence of all intervals.
    """

    question: str
    answer: str
    table: pd.DataFrame
    sweep: Path
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    level: float = 0.95

    def __str__(self) -> str:
        return self.answer

    def __repr__(self) -> str:
        return f"Advice({self.question!r}, {self.answer!r})"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        shown = self.table.to_html(index=False, border=0, na_rep="–")
        return f"<p><b>{escape(self.answer)}</b></p>{notes}{shown}<p>{escape(str(self.sweep))}</p>"


def interval(mean: float, low: float, high: float, *, unit: str = "") -> str:
    """Return a mean with its interval as text: ``"1.34 (1.3 to 1.38)"``; of equal ends, the mean alone."""
    unit = f" {unit}" if unit else ""
    if not low < high:
        return f"{_short(mean)}{unit}"
    return f"{_short(mean)}{unit} ({_short(low)} to {_short(high)})"


def _short(value: float) -> str:
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
