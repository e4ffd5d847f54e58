"""What a benchmark measured, beside its target."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "Row", "as_json", "child", "show"]

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes
    ----------
    what : str
    value : float
    unit : str
        x (a ratio), /s, s, MiB.
    target : float
    at_least : bool
        The value should be no less than the target; otherwise no more.
    note : str
        What else is worth knowing.
    """

    what: str
    value: float
    unit: str
    target: float
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.target if self.at_least else self.value <= self.target


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="vmsim benchmarks", title_justify="left")
    table.add_column("what")
    for name in ("target", "measured"):
        table.add_column(name, justify="right")
    table.add_column("")
    table.add_column("note")
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        result = "[green]ok[/]" if row.met else "[bold red]miss[/]"
        table.add_row(row.what, f"{sign} {row.target:,.10g} {row.unit}", _text(row), result, row.note)
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _text(row: Row) -> str:
    digits = 0 if row.value >= 1000 else 2
    return f"{row.value:,.{digits}f} {row.unit}"


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows as JSON types."""
    return [asdict(row) | {"met": row.met} for row in rows]


def child(*arguments: str, program: str = "python", environment: Mapping[str, str] | None = None) -> str:
    """Run a program of this environment (python, vmsim) in a process of its own; return its output.

    Raises
    ------
    RuntimeError
        It failed; the message has its errors.
    """
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # as installed
    done = subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments],
        cwd=ROOT,
        env={**own, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
