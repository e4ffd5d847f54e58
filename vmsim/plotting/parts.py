"""What a figure of runs is drawn of: one run, one after the other of a comparison, or two side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, Final, NamedTuple

import pandas as pd

from vmsim.analysis.style import PALETTE
from vmsim.base.errors import InputError, nearest
from vmsim.record.comparison import Comparison
from vmsim.record.result import Result
from vmsim.scenario.modes import paging_modes

__all__ = ["MANY", "Drawn", "look_of", "per_panel", "stacked"]

MANY: Final = 8
"""VMs that can be told from each other in one figure; more are shown by group."""

# Yellow is too light for a line on paper.
_COLOURS: Final = tuple(colour for colour in PALETTE if colour != "#F0E442")
_DASHES: Final = ("-", "--", ":", "-.")
_LOOKS: Final[list[dict[str, Any]]] = [
    {"color": colour, "linestyle": dash} for dash, colour in product(_DASHES, _COLOURS)
]


class Drawn(NamedTuple):
    """A run that is drawn.

    Attributes
    ----------
    title : str
        What it is called beside others; empty where it is the only one.
    result : Result
    vms : tuple of str
        Those of its VMs that are drawn.
    """

    title: str
    result: Result
    vms: tuple[str, ...]

    def table(self, name: str) -> pd.DataFrame:
        """Return the rows of a table that are of the VMs drawn."""
        table = self.result.table(name)
        return table[table["vm"].isin(self.vms)]

    @classmethod
    def of(cls, source: Result | Comparison, vms: Sequence[str], title: str = "") -> list[Drawn]:
        """Return what is drawn of a run, or of all runs of a comparison.

        Raises
        ------
        InputError
            It has no such VM.
        """
        if isinstance(source, Result):
            known = [vm.name for vm in source.scenario.vms]
            for name in vms:
                if name not in known:
                    raise InputError(f"There is no VM {name!r}. {nearest(name, known)}", key="vm")
            return [cls(title, source, tuple(vms or known))]
        labels = {name: mode.label for name, mode in paging_modes().items()}
        return [
            drawn for mode, result in source.results.items() for drawn in cls.of(result, vms, labels.get(mode) or mode)
        ]


def stacked(parts: Sequence[Drawn], make: Callable[[Drawn], pd.DataFrame]) -> pd.DataFrame:
    """Return the tables of all parts, one below the other, with a column `run` where there are several."""
    tables = [make(part) for part in parts]
    if len(parts) == 1:
        return tables[0].reset_index(drop=True)
    for part, table in zip(parts, tables, strict=True):
        table.insert(0, "run", part.title)
    return pd.concat(tables, ignore_index=True)


def per_panel(
    parts: Sequence[Drawn], table: pd.DataFrame, axes: Any, draw: Callable[[pd.DataFrame, Any], None]
) -> None:
    """Draw each part on axes of its own, with its title above; axes that are left over are taken away.

    Several have one legend, above all of them.
    """
    named: dict[str, Any] = {}
    for place, ax in enumerate(axes.flat):
        if place >= len(parts):
            ax.set_axis_off()
            continue
        title = parts[place].title
        draw(table[table["run"] == title] if "run" in table else table, ax)
        if not title:
            continue
        ax.set_title(title)
        ax.label_outer()
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
        if ax.get_legend():
            ax.get_legend().remove()
    if named:
        axes.flat[0].figure.legend([*named.values()], [*named], loc="outside upper center", ncols=min(4, len(named)))


def look_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return colour and dashes of lines by name; no two of the first 28 are alike."""
    return {name: _LOOKS[place % len(_LOOKS)] for place, name in enumerate(dict.fromkeys(names))}
