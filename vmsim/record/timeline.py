"""What happened when: spans of time of vCPUs, pCPUs and daemons."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from vmsim.record.columns import Column, attributes
from vmsim.record.log import Log

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "LIMIT", "Span", "span_log", "table_of"]

LIMIT: Final = 1 << 20
"""Spans kept of a run: at least half as many are there once it has had so many."""

COLUMNS: Final[Mapping[str, Column]] = MappingProxyType(
    {
        "start_cycle": Column("int64", "cycle", "when it began, from the start of the simulation"),
        "cycles": Column("int64", "cycles", "how long it took"),
        "track": Column("str", "", "`pcpu N`, `VM/vcpu N`, or a daemon's name"),
        "what": Column(
            "str",
            "",
            "of a pCPU the vCPU that ran; of a vCPU `exit: …`, the cause of a wait, `shootdown` or `interrupt`; of a "
            "daemon `runs`",
        ),
        "pages": Column("int64", "4 KiB pages", "how many pages it was about, where that is known; else 0"),
    }
)
"""The columns of the table `timeline`."""


class Span(NamedTuple):
    """Something that took time."""

    start: int
    cycles: int
    track: str
    what: str
    pages: int = 0


def span_log(limit: int = LIMIT) -> Log[Span]:
    """Return a log of spans without any."""
    return Log(Span, len(Span._fields), names=(2, 3), limit=limit)


def table_of(log: Log[Span]) -> pd.DataFrame:
    """Return the spans of a log in the order of their beginnings; ``attrs["every"]``: as of `Log.every`."""
    import pandas as pd

    rows = sorted(log, key=lambda span: (span.start, -span.cycles))
    values = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in COLUMNS]
    table = pd.DataFrame(
        {name: pd.Series(each, dtype=about.kind) for (name, about), each in zip(COLUMNS.items(), values, strict=True)}
    )
    table.attrs = {**attributes(COLUMNS, COLUMNS), "every": log.every}
    return table
