"""Draws from distributions of times."""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from random import Random

from vmsim.base.errors import InputError
from vmsim.base.files import printable, read_text
from vmsim.base.units import shown
from vmsim.scenario.service import LONGEST, Service

__all__ = ["Draw", "drawer", "read_histogram"]

Draw = Callable[[], int]
_COLUMNS = ("from_us", "to_us", "count")


def drawer(service: Service, random: Random, frequency: int, folder: Path) -> Draw:
    """Return what gives a time, in cycles, each time that it is called; none is longer than `LONGEST`.

    Parameters
    ----------
    service : Service
        The distribution.
    random : Random
        Where it draws from.
    frequency : int
        Cycles in a second.
    folder : Path
        Which a file's path is relative to.

    Raises
    ------
    InputError
        The file cannot be read, or is no histogram.
    """
    scale = frequency / 1e9
    longest = LONGEST.cycles(frequency)
    first, second = service.first, service.second
    match service.kind:
        case "constant":
            cycles = round(first * scale)
            return lambda: cycles
        case "exponential":
            return lambda: round(min(longest, random.expovariate(1.0) * first * scale))
        case "uniform":
            return lambda: round(random.uniform(first, second) * scale)
        case "lognormal":
            middle = math.log(first) - second * second / 2 if first else -math.inf
            return lambda: round(min(longest, random.lognormvariate(middle, second) * scale)) if first else 0
    bins = read_histogram(folder / service.path)
    edges = [*accumulate(count for _, _, count in bins)]

    def from_file() -> int:
        low, high, _ = bins[min(bisect_right(edges, random.random() * edges[-1]), len(bins) - 1)]
        return round(random.uniform(low, high) * 1000 * scale)

    return from_file


def read_histogram(path: Path) -> list[tuple[float, float, float]]:
    """Return the bins of a histogram file: from and to, in microseconds, and how many there are.

    Raises
    ------
    InputError
        It cannot be read, or is no histogram; the message says where.
    """
    name = printable(path)
    expected = f"Expected a CSV with the columns {', '.join(_COLUMNS)}"
    lines = csv.DictReader(read_text(path, "histogram of a device's times").splitlines(), restval="", strict=True)
    bins = []
    try:
        for row in lines:
            cells = [row.get(column, "") for column in _COLUMNS]
            where = f"{name}:{lines.line_num}"
            try:
                low, high, count = map(float, cells)
            except ValueError:
                raise InputError(f"{where}: {shown(','.join(cells))} is no bin of a histogram. {expected}.") from None
            if not (0 <= low <= high <= LONGEST.cycles(10**6) and 0 <= count < math.inf):
                text = f"{low:g} to {high:g} us, {count:g} times is no bin of a histogram"
                raise InputError(f"{where}: {text}. Expected times of 0 to {LONGEST}, in ascending order.")
            bins.append((low, high, count))
    except csv.Error as error:
        raise InputError(f"{name}:{lines.line_num}: no CSV: {error}. {expected}.") from None
    if not 0 < sum(count for _, _, count in bins) < math.inf:
        raise InputError(f"{name}: the histogram is empty. {expected}.")
    return bins
