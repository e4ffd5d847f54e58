"""What becomes of each published row: predicted, fitted, shown, a fact for presets, or not attempted and why.

``data/targets.toml`` says so for groups of rows of each file; the first group that has a row is its own.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal, TypeAlias, get_args

__all__ = ["STATUSES", "Status", "Target", "targets"]

Status: TypeAlias = Literal["predicted", "conformance", "fitted", "shown", "fact", "not attempted"]
STATUSES: Final = get_args(Status)
"""predicted, conformance, fitted, shown (beside what is predicted, without a verdict): by the study that is named.

fact: a preset's figure, or a study's input, is from there. not attempted: no study predicts it, and `why` says why.
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Some rows of a published table.

    Attributes
    ----------
    file : str
        In `vmsim/validation/data`.
    rows : tuple of int
        Numbers of the rows, the first after the heading is 1.
    what : str
        What they are.
    status : str
        Of `STATUSES`.
    study : str
        That predicts, fits or shows them.
    why : str
        Why they are not attempted, or what the fact is for.
    """

    file: str
    rows: tuple[int, ...]
    what: str
    status: Status
    study: str = ""
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the target as JSON types."""
        about = {"file": self.file, "rows": list(self.rows), "what": self.what}
        return about | {"status": self.status, "study": self.study, "why": self.why}


@cache
def targets() -> tuple[Target, ...]:
    """Return what becomes of every row, by file in alphabetical order.

    Raises
    ------
    ValueError
        ``targets.toml`` forgets a row, or has a group without one.
    """
    return tuple(_read())


def _read() -> Iterator[Target]:
    data = files("vmsim.validation").joinpath("data")
    told: dict[str, list[dict[str, Any]]] = tomllib.loads(data.joinpath("targets.toml").read_text(encoding="utf-8"))
    names = sorted(each.name for each in data.iterdir() if each.name.endswith(".csv"))
    if unknown := told.keys() - {name.removesuffix(".csv") for name in names}:
        raise ValueError(f"targets.toml: there is no {', '.join(sorted(unknown))}.csv")
    for name in names:
        rows = [*csv.DictReader(data.joinpath(name).read_text(encoding="utf-8").splitlines())]
        left = dict(enumerate(rows, 1))
        for group in told.get(name.removesuffix(".csv"), []):
            mine = [number for number, row in left.items() if _has(group.get("where", {}), row)]
            if not mine:
                raise ValueError(f"targets.toml: {name}: no row is left for {group['what']!r}")
            for number in mine:
                del left[number]
            more = {key: group[key] for key in ("study", "why") if key in group}
            yield Target(name, tuple(mine), group["what"], group["status"], **more)
        if left:
            raise ValueError(f"targets.toml: {name}: nothing is said of rows {', '.join(map(str, left))}")


def _has(where: dict[str, str | list[str]], row: dict[str, str]) -> bool:
    """Whether a row has the values that are asked for; of a list, one of them."""
    return all(row[key] in ([value] if isinstance(value, str) else value) for key, value in where.items())
