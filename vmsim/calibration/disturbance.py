"""What else ran while a machine was measured.

Medians and the thread's own clock leave out what is short, and the turns of other programs. What others take from
shared caches and memory, or from the clock, they take all the while: that is in every sample, and can only be told.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

__all__ = ["Disturbance", "Reading"]

_PROC: Final = Path("/proc")
_BUSY: Final = (0, 1, 2, 5, 6)  # user, nice, system, irq, softirq (proc_stat(5)); a guest's time is in user
_STOLEN: Final = 7
_MUCH: Final = 0.1  # CPUs that others keep busy
_SHARE: Final = 0.02


class Reading(NamedTuple):
    """The clocks that tell, in seconds.

    Attributes
    ----------
    time : float
        That has passed.
    busy, stolen : float
        That all CPUs together ran something, and that a hypervisor ran something else in their place (``/proc/stat``).
    ours : float
        Of this process, with children that have ended.
    waited : float
        That this process was ready and had no CPU (``/proc/self/schedstat``).
    """

    time: float
    busy: float
    stolen: float
    ours: float
    waited: float

    @classmethod
    def now(cls, proc: Path = _PROC) -> Self:
        """Read them; what a kernel does not tell is 0.

        Parameters
        ----------
        proc : Path, optional
            Where its files are.
        """
        tick = os.sysconf("SC_CLK_TCK")
        spent = [int(text) / tick for text in _words(proc / "stat")[1:]] or [0.0]
        waited = _words(proc / "self" / "schedstat")
        ours = os.times()
        return cls(
            time.monotonic(),
            sum(spent[field] for field in _BUSY if field < len(spent)),
            spent[_STOLEN] if len(spent) > _STOLEN else 0.0,
            sum(ours[:4]),
            int(waited[1]) / 1e9 if len(waited) > 1 else 0.0,
        )


def _words(path: Path) -> list[str]:
    """Return the words of a file's first line."""
    try:
        return path.read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return []


class Disturbance(NamedTuple):
    """What others had of a machine while it was measured.

    Attributes
    ----------
    others : float
        CPUs that other programs kept busy, on average.
    waited : float
        Share of the time in which this program was ready and had no CPU.
    stolen : float
        CPUs that the hypervisor gave to others, on average.
    """

    others: float
    waited: float
    stolen: float

    @classmethod
    def between(cls, begin: Reading, end: Reading) -> Self:
        """Return what happened between two readings."""
        span = max(end.time - begin.time, 1e-9)
        ours = end.ours - begin.ours
        return cls(
            max(0.0, round((end.busy - begin.busy - ours) / span, 3)),
            round(min(1.0, (end.waited - begin.waited) / span), 3),
            round((end.stolen - begin.stolen) / span, 3),
        )

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Self:
        """Return it from JSON types."""
        return cls(*(float(table[name]) for name in cls._fields))

    @property
    def much(self) -> bool:
        """Whether that is enough to make figures unsure."""
        return self.others > _MUCH or max(self.waited, self.stolen) > _SHARE

    def __str__(self) -> str:
        told = [f"other programs kept {self.others:.1f} CPUs busy"] if self.others > _MUCH else []
        if self.waited > _SHARE:
            told.append(f"this one waited for its CPU {self.waited:.0%} of the time")
        if self.stolen > _SHARE:
            told.append(f"the hypervisor took {self.stolen:.2f} CPUs away")
        return ", ".join(told) or "little else ran"
