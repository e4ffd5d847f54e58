"""What a run or a comparison shows, said in a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from vmsim.base.errors import listed

__all__ = ["first_touches", "percent"]

_NAMED: Final = 3  # groups of VMs at most that a line names


def percent(share: float) -> str:
    """Return a share as a percentage: whole, or with "less than 1 %"."""
    return "less than 1 %" if 0 < share < 0.01 else f"{share * 100:.0f} %"


def first_touches(rows: Iterable[Mapping[str, Any]], *, warmed: bool) -> str:
    """Say what share of each VM's cycles first touches took.

    Parameters
    ----------
    rows : iterable of mapping
        Of the table `summary`. VMs of one group count together, in all modes of the table.
    warmed : bool
        Whether the scenario has a warm-up.

    Returns
    -------
    str
        One sentence.
    """
    shares: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        sums = shares.setdefault(row["vm_group"], {}).setdefault(row["mode"], [0, 0])
        sums[0] += row["first_touch_cycles"]
        sums[1] += row["total_cycles"]
    ranges = {name: sorted(first / max(1, total) for first, total in modes.values()) for name, modes in shares.items()}
    where = "after the warm-up " if warmed else ""
    if all(each[-1] < 0.01 for each in ranges.values()):
        return f"Of every VM's cycles {where}less than 1 % are first touches."
    most = sorted(ranges.items(), key=lambda each: -each[1][-1])
    told = [f"{_span(low, high)} of {name}'s cycles" for name, (low, *_, high) in _ends(most[:_NAMED])]
    if len(most) > _NAMED:
        told.append(f"at most {percent(most[_NAMED][1][-1])} of the others'")
    remedy = (
        "a longer warmup leaves more of them out" if warmed else 'warmup = "50%" leaves out those of the first half'
    )
    text = f"{listed(told)} {where}are first touches; {remedy}."
    return text[0].upper() + text[1:]


def _ends(shares: Iterable[tuple[str, list[float]]]) -> list[tuple[str, list[float]]]:
    return [(name, [each[0], each[-1]]) for name, each in shares]


def _span(low: float, high: float) -> str:
    if percent(low) == percent(high):
        return percent(high)
    return f"{low * 100:.0f} to {high * 100:.0f} %"
