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
from vmsim.scenario.service import Service

__all__ = ["Draw", "drawer", "read_histogram"]

Draw = Callable[[], int]
_COLUMNS = ("from_us", "to_us", "count")


def drawer(service: Service, random: Random, frequency: int, folder: Path) -> Draw:
    """Return what gives a time, in cycles, each time that it is called.

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
    first, second = service.first, service.second
    match service.kind:
        case "constant":
            cycles = round(first * scale)
            return lambda: cycles
        case "exponential":
            return lambda: round(random.expovariate(1.0) * first * scale)
        case "uniform":
            return lambda: round(random.uniform(first, second) * scale)
        case "lognormal":
            middle = math.log(first) - second * second / 2 if first else -math.inf
            return lambda: round(random.lognormvariate(middle, second) * scale) if first else 0
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
    expected = f"Expected a CSV with the columns {', '.join(_COLUMNS)}"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no histogram of a device's times can be read: {error}. {expected}.") from None
    bins = []
    for line, row in enumerate(rows, start=2):
        try:
            low, high, count = (float(row[name]) for name in _COLUMNS)
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}, line {line}: no bin of a histogram: {dict(row)}. {expected}.") from None
        if not (0 <= low <= high < math.inf and 0 <= count < math.inf):
            raise InputError(f"{path}, line {line}: {low:g} to {high:g} us, {count:g} times is no bin of a histogram.")
        bins.append((low, high, count))
    if not sum(count for _, _, count in bins):
        raise InputError(f"{path}: the histogram is empty. {expected}.")
    return bins
