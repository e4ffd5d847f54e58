"""The plan of a generation: which points are to be run, as one compact array."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any, Final

import numpy as np

from vmsim.engine.resident import resident
from vmsim.sweeps.expressions import Value
from vmsim.sweeps.points import MODEL, Space, candidates, column, joined, kind_of
from vmsim.sweeps.shard import Shard
from vmsim.sweeps.spec import SAME, Range
from vmsim.sweeps.sweep import Sweep
from vmsim.sweeps.worker import Batch, Job

__all__ = ["Identities", "Plan"]

# Without padding, whose bytes would be in the digest.
_POINT: Final = np.dtype([("identity", "S32"), ("number", "i8"), ("replicate", "i8"), ("seed", "i8"), ("cost", "f8")])
_CHUNK: Final = 4096
Identities = np.ndarray[Any, np.dtype[np.bytes_]]


class Plan:
    """The points of a sweep that are not recorded yet, in the sweep's order.

    Attributes
    ----------
    points : structured array
        identity, number (of the values), replicate, seed and cost of each.
    columns : dict of str to str
        Kind of the column of each varied name.
    figures : dict of str to str
        Names of more columns, each with its component and figure.
    total : int
        Points of the sweep, recorded ones included.
    skipped : int
        Combinations left out because their scenario cannot be (``invalid = "skip"``).
    """

    def __init__(self, sweep: Sweep, space: Space, points: np.ndarray[Any, Any], columns: dict[str, str]) -> None:
        self._sweep = sweep
        self._space = space
        self.points = points
        self.columns = columns
        self.figures = dict(sorted(sweep.figures.items()))  # whatever the order in which a sweep names them
        self.total = len(points)
        self.largest = 0  # bytes of memory that one of its points takes, about
        self.skipped = space.skipped
        self._base = sweep.scenario.to_toml()
        self._folder = str(sweep.scenario.folder.absolute())

    @classmethod
    def of(
        cls,
        sweep: Sweep,
        known: Identities | None = None,
        progress: Callable[[int], None] = lambda _: None,
        shard: Shard | None = None,
    ) -> Plan:
        """Enumerate a sweep, or a shard of it, and leave out the points in `known`.

        Raises
        ------
        InputError
            A point's scenario cannot be.
        """
        space = Space(sweep)
        columns = static_columns(sweep)
        chunks, chunk, largest = [], [], 0
        for candidate, values, scenario in candidates(sweep, space):
            if candidate.replicate == 0:
                for name in sweep.derive:
                    kind = kind_of([values[name]])
                    columns[name] = joined(columns[name], kind) if name in columns else kind
            largest = max(largest, resident(scenario))
            chunk.append((candidate.identity, *candidate[:3], candidate.cost))
            if len(chunk) == _CHUNK:
                chunks.append(np.array(chunk, _POINT))
                chunk.clear()
                progress(len(chunks) * _CHUNK)
        points = np.concatenate([*chunks, np.array(chunk, _POINT)])
        _, first = np.unique(points["identity"], return_index=True)
        points = points[np.sort(first)]
        if shard:
            points = points[slice(*shard.bounds(points["cost"]))]
        ordered = {name: columns.get(name, "str") for name in sweep.varied}
        plan = cls(sweep, space, points, ordered)
        plan.largest = largest
        return plan if known is None else plan.without(known)

    def without(self, known: Identities) -> Plan:
        """Return the plan without some points."""
        left = self.points[~np.isin(self.points["identity"], known)] if len(known) else self.points
        plan = Plan(self._sweep, self._space, left, self.columns)
        plan.total, plan.largest = self.total, self.largest
        return plan

    def __len__(self) -> int:
        return len(self.points)

    @property
    def digest(self) -> str:
        """SHA-256 of the plan: two drivers with the same one may continue each other's work."""
        facts = json.dumps([self.columns, self.facts], sort_keys=True)
        return hashlib.sha256(facts.encode() + np.ascontiguousarray(self.points).tobytes()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """What stands in every part."""
        names = {name: list(self._sweep.keys_of(name)) for name in self._sweep.varied}
        facts = {"model": MODEL, "vmsim": version("vmsim"), "base": self._base, "names": names}
        return facts | ({"figures": self.figures} if self.figures else {})

    def identity(self, place: int) -> str:
        """Return the identity of a point in hexadecimal."""
        return bytes(self.points["identity"][place]).ljust(32, b"\0").hex()

    def values(self, place: int) -> dict[str, Value]:
        """Return what is varied, by name, at a point."""
        return self._space.values(int(self.points["number"][place]))

    def prefix(self, place: int) -> list[Any]:
        """Return the first columns of a point's rows: point, replicate, seed and what is varied."""
        point = self.points[place]
        values = self.values(place)
        axes = [column(values[name], kind) for name, kind in self.columns.items() if name not in SAME]
        return [self.identity(place), int(point["replicate"]), int(point["seed"]), *axes]

    def batch(self, places: Iterable[int]) -> Batch:
        """Return what a worker needs to know of some points."""
        jobs = tuple(
            Job(place, dict(self._sweep.settings(self.values(place))), int(self.points["seed"][place]))
            for place in places
        )
        return Batch(self._base, self._folder, jobs, tuple(self.figures.values()))


def static_columns(sweep: Sweep) -> dict[str, str]:
    """Return the kinds of the columns of all that is not derived; they depend on all values, wanted or not."""
    columns = {name: kind_of(values) for name, values in sweep.axes.items()}
    for block in sweep.zip:
        columns |= {name: kind_of(values) for name, values in block.items()}
    if sweep.list:
        columns |= {name: kind_of([row[name] for row in sweep.list]) for name in sweep.list[0]}
    if sweep.sample:
        columns |= {name: _range_kind(range_) for name, range_ in sweep.sample.ranges.items()}
    return columns


def _range_kind(range_: Range) -> str:
    return kind_of(range_.choices if range_.choices is not None else [range_.value(0.0)])
