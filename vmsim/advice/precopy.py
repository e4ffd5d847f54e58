"""Pre-copy migration by arithmetic: rounds of sending what was written to during the round before.

As QEMU's (migration/ram.c, docs/devel/migration): first all memory is sent, then, round by round, what was written to
meanwhile, until the rest takes no longer than the downtime; then the VM is stopped for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil, exp, log
from typing import Final, NamedTuple

__all__ = ["Migration", "Written", "migrate"]

_MOST_ROUNDS: Final = 1000
_SHRINKS: Final = 1e-6  # at least by so much, as a share, or a round gains nothing


class Migration(NamedTuple):
    """How a migration goes.

    Attributes
    ----------
    converges : bool
    rounds : int
        While the VM runs, the first with all memory included.
    seconds : float
        How long they take.
    left : float
        Bytes that are sent while it is stopped; if it does not converge, those that no round gets below.
    """

    converges: bool
    rounds: int
    seconds: float
    left: float


class Written:
    """How many bytes a VM writes to in a time, each page counted once, from readings of its dirty log.

    Between two intervals that were measured it is a power of the time. Beyond the longest, and below the shortest, it
    has bounds alone: it never gets less with time, and twice the time has at most twice as many, for each half has at
    most as many as any interval of its length.

    Parameters
    ----------
    readings : sequence of (float, float)
        Seconds of an interval, ascending, and mean bytes written to in one.
    memory : float
        Bytes that there are.
    """

    def __init__(self, readings: Sequence[tuple[float, float]], memory: float) -> None:
        self._readings = readings
        self._memory = memory

    def most(self, seconds: float) -> float:
        """Return the most that it may be in so many seconds."""
        first, last = self._readings[0], self._readings[-1]
        if seconds > last[0]:
            times, rest = divmod(seconds, last[0])
            return min(self._memory, last[1] * times + (self.most(rest) if rest else 0.0))
        return first[1] if seconds < first[0] else self._between(seconds)

    def least(self, seconds: float) -> float:
        """Return the least that it may be in so many seconds."""
        first, last = self._readings[0], self._readings[-1]
        if seconds < first[0]:
            return first[1] / ceil(first[0] / seconds)
        return last[1] if seconds > last[0] else self._between(seconds)

    def _between(self, seconds: float) -> float:
        for (time, size), (later, larger) in zip(self._readings, self._readings[1:], strict=False):
            if time <= seconds <= later:
                if not size or not larger:
                    return size + (larger - size) * (seconds - time) / (later - time)
                return exp(log(size) + (log(larger) - log(size)) * (log(seconds / time) / log(later / time)))
        return self._readings[-1][1]


def migrate(memory: float, written: Callable[[float], float], rate: float, downtime: float) -> Migration:
    """Return how a migration goes.

    Parameters
    ----------
    memory : float
        Bytes to send at first.
    written : callable
        Bytes written to in so many seconds, each page counted once.
    rate : float
        Bytes a second that the link carries.
    downtime : float
        Seconds that the VM may be stopped.
    """
    left, spent = memory, 0.0
    for number in range(_MOST_ROUNDS):
        if left <= rate * downtime:
            return Migration(True, number, spent, left)
        seconds = left / rate
        after = written(seconds)
        spent += seconds
        if number and after >= left * (1 - _SHRINKS):
            return Migration(after <= rate * downtime, number + 1, spent, after)
        left = after
    return Migration(left <= rate * downtime, _MOST_ROUNDS, spent, left)
