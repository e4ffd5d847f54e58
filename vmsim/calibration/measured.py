"""What was measured of a machine: samples, never means, so that how sure they are can be told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from vmsim.base.errors import InputError
from vmsim.calibration.disturbance import Disturbance

__all__ = ["Measured", "Samples", "robust"]

_FORM: Final = "vmsim measurements 1"
_NORMAL: Final = 1.4826  # of a normal distribution, its standard deviation over its median absolute deviation

Samples = dict[int, list[float]]
"""Repeated measurements in ns by what they depend on: KiB, or pages."""


def robust(values: list[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Return the median, and the median absolute deviation scaled to a normal distribution's standard deviation."""
    found = np.asarray(values, float)
    middle = float(np.median(found))
    return middle, float(_NORMAL * np.median(np.abs(found - middle)))


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of one machine; times in ns.

    Attributes
    ----------
    cpu, kernel : str
        As ``/proc/cpuinfo`` and ``uname`` name them.
    preset : str
        The CPU preset nearest to it.
    hertz : int
        Of its TSC.
    virtual : bool
        Whether a hypervisor says that it is there.
    caches : dict of str to int
        Bytes by name (l1, l2, llc).
    loads : Samples
        A load of a chase through all lines of so many KiB, on large pages.
    small, large : Samples
        A load of a chase through one line of each of so many pages of 4 KiB, mapped by 4 KiB and by 2 MiB.
    operations : dict of str to list of float
        Of a page, or of a call.
    skipped : dict of str to str
        What could not be measured, and why.
    disturbance : Disturbance, optional
        What else ran meanwhile; None: not known.
    """

    cpu: str
    kernel: str
    preset: str
    hertz: int
    virtual: bool
    caches: dict[str, int]
    loads: Samples
    small: Samples
    large: Samples
    operations: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    disturbance: Disturbance | None = None

    def cycles(self, nanoseconds: float) -> float:
        """Return cycles of the TSC."""
        return nanoseconds * self.hertz / 1e9

    @property
    def clock(self) -> float:
        """The clock of the core in Hz, which may run faster than the TSC; 0: not measured."""
        found = self.operations.get("cycle")
        return 1e9 / robust(found)[0] if found else 0.0

    def difference(self) -> dict[int, tuple[float, float]]:
        """Return, by pages, the cycles that translation by 4 KiB adds to a load, and their deviation."""
        found = {}
        for pages in sorted(self.small.keys() & self.large.keys()):
            (low, one), (high, two) = robust(self.large[pages]), robust(self.small[pages])
            found[pages] = (self.cycles(high - low), self.cycles(float(np.hypot(one, two))))
        return found

    @property
    def disturbed(self) -> str:
        """What disturbed the measurement; empty if little did, or nobody looked."""
        return str(self.disturbance) if self.disturbance and self.disturbance.much else ""

    def to_json(self) -> dict[str, Any]:
        """Return all measurements as JSON types."""
        table = {name: getattr(self, name) for name in self.__slots__}
        for name in ("loads", "small", "large"):
            table[name] = [[key, values] for key, values in table[name].items()]
        if self.disturbance:
            table["disturbance"] = self.disturbance._asdict()
        return {"format": _FORM, **table}

    @classmethod
    def from_json(cls, text: str, source: str) -> Self:
        """Read what `to_json` gave.

        Raises
        ------
        InputError
            It is something else.
        """
        try:
            table: Mapping[str, Any] = json.loads(text)
            if table["format"] != _FORM:
                raise ValueError(f"its format is {str(table['format'])[:40]!r}")
            given = {name: table[name] for name in cls.__slots__ if name != "disturbance"}
            if told := table.get("disturbance"):
                given["disturbance"] = Disturbance.from_json(told)
            for name in ("loads", "small", "large"):
                given[name] = {int(key): [float(value) for value in values] for key, values in given[name]}
                if not given[name] or not all(given[name].values()):
                    raise ValueError(f"{name} is empty")
            given["hertz"] = int(given["hertz"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{source}: no measurements of vmsim calibrate ({error}); expected a file of its --save."
            ) from error
        if given["hertz"] <= 0:
            raise InputError(f"{source}: hertz: found {given['hertz']}, expected a number above 0.")
        return cls(**given)
