"""The points of a sweep: their values, seeds, identities and scenarios.

A point *is* its scenario: its identity is a digest of what decides its results, and its seed follows from that too.
Neither knows of the point's place in a sweep, so that a sweep can grow without running anything twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from vmsim.base.errors import InputError
from vmsim.base.files import sha256
from vmsim.base.units import PAGE
from vmsim.engine.inputs import files_of
from vmsim.scenario import Scenario, Workload, toml
from vmsim.scenario.settings import apply_settings
from vmsim.sweeps.expressions import Value, plain
from vmsim.sweeps.spec import Spec
from vmsim.workloads.trace import find

__all__ = [
    "MODEL",
    "Candidate",
    "Point",
    "Space",
    "accesses_of",
    "candidates",
    "column",
    "identity_of",
    "joined",
    "kind_of",
    "points",
    "scenario_of",
]

MODEL: Final = 12
"""Version of the model. Whoever changes what any scenario's tables say adds 1, and recorded points are run anew."""

_TRIED: Final = 8  # other values of an axis, to learn whether it matters
_NAMED: Final = 12  # values that a message shows
_INSIDE: Final = ',"seed":{},"vms":['


@dataclass(frozen=True, slots=True)
class Point:
    """One simulation of a sweep.

    Attributes
    ----------
    identity : str
        SHA-256, in hexadecimal, of all that decides the results.
    values : dict of str to object
        What is varied, by name.
    replicate : int
        Which repetition, from 0.
    scenario : Scenario
        With the point's own seed.
    """

    identity: str
    values: dict[str, Value]
    replicate: int
    scenario: Scenario


class Candidate(NamedTuple):
    """A point before its scenario is kept: small enough to have many of."""

    number: int  # of the values in the sweep's space
    replicate: int
    seed: int
    identity: bytes
    cost: float  # in accesses


class Space:
    """All combinations of a sweep's values, by number: none is stored.

    Parameters
    ----------
    sweep : Spec

    Attributes
    ----------
    size : int
        Combinations, those that a filter leaves out among them.
    skipped : int
        Of those that `candidates` has passed, how many it left out because their scenario cannot be.
    """

    def __init__(self, sweep: Spec) -> None:
        self._sweep = sweep
        self._blocks: list[tuple[int, Sequence[str], Any]] = [
            (len(values), (name,), tuple((value,) for value in values)) for name, values in sweep.axes.items()
        ]
        for block in sweep.zip:
            rows = tuple(zip(*block.values(), strict=True))
            self._blocks.append((len(rows), tuple(block), rows))
        if sweep.list:
            names = tuple(sweep.list[0])
            listed = tuple(tuple(row[name] for name in names) for row in sweep.list)
            self._blocks.append((len(listed), names, listed))
        if sweep.sample:
            drawn = _Drawn(sweep)
            self._blocks.append((len(drawn), tuple(sweep.sample.ranges), drawn))
        self.size = 1
        self.skipped = 0
        for length, _, _ in self._blocks:
            self.size *= length

    def values(self, number: int) -> dict[str, Value]:
        """Return the values of a combination by name, derived ones included."""
        places = []
        for length, _, _ in reversed(self._blocks):
            number, place = divmod(number, length)
            places.append(place)
        values: dict[str, Value] = {}
        for (_, names, rows), place in zip(self._blocks, reversed(places), strict=True):
            values.update(zip(names, rows[place], strict=True))
        return self._sweep.derived(values)

    def neighbours(self, number: int, most: int) -> Iterator[tuple[tuple[str, ...], list[int]]]:
        """Yield, for the names of each block, up to `most` combinations that differ from one in those alone."""
        unit = 1
        for length, names, _ in reversed(self._blocks):
            place = number // unit % length
            others = [each for each in range(length) if each != place][:most]
            yield tuple(names), [number + (each - place) * unit for each in others]
            unit *= length


class _Drawn:
    """The rows of a sample."""

    def __init__(self, sweep: Spec) -> None:
        assert sweep.sample
        self._ranges = tuple(sweep.sample.ranges.values())
        self._shares = _shares(sweep.sample.kind, sweep.sample.points, len(self._ranges), sweep.sample.seed)

    def __len__(self) -> int:
        return len(self._shares)

    def __getitem__(self, place: int) -> tuple[Value, ...]:
        return tuple(
            range_.value(float(share)) for range_, share in zip(self._ranges, self._shares[place], strict=True)
        )


def _shares(kind: str, points: int, dimensions: int, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.random((points, dimensions))
    from scipy.stats import qmc

    sampler = qmc.Sobol(dimensions, rng=rng) if kind == "sobol" else qmc.LatinHypercube(dimensions, rng=rng)
    shares: np.ndarray[Any, np.dtype[np.float64]] = sampler.random(points)
    return shares


def scenario_of(
    data: Mapping[str, Any], folder: Path, settings: Mapping[str, Any], idle: set[str] | None = None
) -> Scenario:
    """Return a scenario given as tables, with other values at some dotted keys.

    Keys that have no effect there, such as those of another paging mode, are left out; they are added to `idle`.

    Raises
    ------
    InputError
        A key that does not exist, or a value that cannot be.
    """
    tables = _copied(data)
    apply_settings(tables, settings, idle=set() if idle is None else idle)
    return Scenario.from_tables(tables, folder=folder)


def identity_of(scenario: Scenario) -> str:
    """Return the SHA-256 of what decides a scenario's results: itself, its traces, and the model.

    Raises
    ------
    InputError
        A trace does not exist.
    """
    return hashlib.sha256(_head(_files(scenario, {})) + scenario.canonical().encode()).hexdigest()


def points(sweep: Spec) -> Iterator[Point]:
    """Yield the points of a sweep; see `Sweep.points`."""
    for candidate, values, scenario in candidates(sweep):
        seeded = scenario.model_copy(update={"seed": candidate.seed})
        yield Point(candidate.identity.hex(), values, candidate.replicate, seeded)


def candidates(sweep: Spec, space: Space | None = None) -> Iterator[tuple[Candidate, dict[str, Value], Scenario]]:
    """Yield every point with its values and its scenario before the seed is put in.

    Raises
    ------
    InputError
        A point's scenario cannot be; the message names its values.
    """
    space = space or Space(sweep)
    data = toml.parse(sweep.scenario.to_toml(), "scenario")
    folder = sweep.scenario.folder
    digests: dict[Path, tuple[str, int]] = {}
    first: tuple[dict[str, Value], InputError] | None = None  # that cannot be
    never: set[str] | None = None  # keys that had no effect at any point so far
    for number in range(space.size):
        values = space.values(number)
        if not sweep.wanted(values):
            continue
        idle: set[str] = set()
        try:
            scenario = scenario_of(data, folder, sweep.settings(values), idle)
        except InputError as error:
            space.skipped += 1
            first = first or (values, error)
            if sweep.invalid == "skip":
                continue
            raise _refused(values, error, _condition(sweep, space, number, data, folder)) from None
        try:
            files = _files(scenario, digests)
        except InputError as error:
            raise _refused(values, error) from None
        never = idle if never is None else never & idle
        cost = float(sum(accesses_of(vm.workload, folder, digests) for vm in scenario.vms))
        head = _head(files)
        before, inside, after = scenario.canonical().partition(_INSIDE.format(scenario.seed))
        assert inside, "the canonical text has no seed before its VMs"
        begun = hashlib.sha256(head + before.encode())
        rest = after.encode()
        for replicate, seed in enumerate(_seeds(sweep, scenario, begun, rest)):
            digest = begun.copy()
            digest.update(_INSIDE.format(seed).encode() + rest)
            yield Candidate(number, replicate, seed, digest.digest(), cost), values, scenario
    if first and never is None:
        raise _refused(*first)
    if never:
        key = min(never)
        text = "it has no effect at any point of the sweep, in the modes that its VMs run in; leave it out"
        raise InputError(f"{key}: {text}", key=key, message=text)


def _seeds(sweep: Spec, scenario: Scenario, begun: Any, rest: bytes) -> Iterator[int]:
    """Yield the seeds of a point's replicates; that of replicate n is the same however many there are."""
    if any("seed" in sweep.keys_of(name) for name in sweep.varied):
        yield scenario.seed
        return
    if sweep.seeds == "common":
        entropy = scenario.seed
    else:
        digest = begun.copy()
        digest.update(_INSIDE.format(scenario.seed).encode() + rest)
        entropy = int.from_bytes(digest.digest(), "big")
    for replicate in range(sweep.replicates):
        if sweep.seeds == "common" and replicate == 0:
            yield scenario.seed
        else:
            state = np.random.SeedSequence(entropy, spawn_key=(replicate,)).generate_state(1, np.uint64)
            yield int(state[0]) >> 1


def _head(files: Mapping[str, str]) -> bytes:
    facts = {"model": MODEL, "traces": files}
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _files(scenario: Scenario, digests: dict[Path, tuple[str, int]]) -> dict[str, str]:
    """Return the SHA-256 of each file that the scenario reads, by the path that it gives, but the CPU's."""
    return {path: _file(place, digests)[0] for path, place in files_of(scenario).items()}


def _file(path: Path, digests: dict[Path, tuple[str, int]]) -> tuple[str, int]:
    if path not in digests:
        digests[path] = sha256(path), path.stat().st_size
    return digests[path]


def accesses_of(workload: Workload, folder: Path, digests: dict[Path, tuple[str, int]] | None = None) -> int:
    """Return about how many accesses a workload makes, good enough to put long points first."""
    turns = int(getattr(workload, workload.lasts)) if workload.lasts else 1
    if files := workload.files():
        paths = [find(path, folder) for path in files.values()]
        return turns * sum(path.stat().st_size if digests is None else _file(path, digests)[1] for path in paths)
    pages = sum(getattr(workload, size) for size in workload.touches) // PAGE
    return turns * (pages + int(getattr(workload, "work", 0)) if pages else 1)


def _refused(values: Mapping[str, Value], error: InputError, condition: str = "") -> InputError:
    named = ", ".join(f"{name} = {value!r}" for name, value in [*values.items()][:_NAMED])
    named += ", …" if len(values) > _NAMED else ""
    text = str(error).replace("scenario: ", "").rstrip(".")
    hint = ""
    if condition:
        hint = f'. To leave such points out, add the line where = ["{condition}"], or invalid = "skip"'
    said = f"the point {named}: {text}{hint}"
    said += "" if said.endswith("?") else "."
    return InputError(said, key=error.key, message=said, nearest=error.nearest)


def _condition(sweep: Spec, space: Space, number: int, data: Mapping[str, Any], folder: Path) -> str:
    """Return a condition that leaves out a combination whose scenario cannot be, and those that share its fault.

    The values that matter are those of which another makes the scenario one that can be. Empty if there are none, or
    if they have names that no expression can have.
    """

    def can_be(other: int) -> bool:
        try:
            scenario_of(data, folder, sweep.settings(space.values(other)))
        except InputError:
            return False
        return True

    values = space.values(number)
    matter = [
        name
        for names, others in space.neighbours(number, _TRIED)
        if len(names) <= _NAMED and any(map(can_be, others))
        for name in names
    ]
    terms = [(name, values[name]) for name in sweep.varied if name in matter]
    if not terms or not all(part.replace("_", "a").isalnum() for name, _ in terms for part in name.split(".")):
        return ""
    if len(terms) == 1:
        return f"{terms[0][0]} != {terms[0][1]!r}"
    return f"not ({' and '.join(f'{name} == {value!r}' for name, value in terms)})"


def column(value: Value, kind: str) -> Value:
    """Return a value as it stands in a column of a kind: sizes in bytes."""
    if kind == "str":
        return value if isinstance(value, str) else json.dumps(value)
    return float(plain(value)) if kind == "float64" else plain(value)


def kind_of(values: Sequence[Value]) -> str:
    """Return the kind of column that values make: bool, int64, float64, or str."""
    kinds = {_kind(plain(value)) for value in values}
    if len(kinds) == 1:
        return kinds.pop()
    return "float64" if kinds == {"int64", "float64"} else "str"


def joined(first: str, second: str) -> str:
    """Return the kind of column for values of two kinds."""
    if first == second:
        return first
    return "float64" if {first, second} == {"int64", "float64"} else "str"


def _copied(tables: Any) -> Any:
    """Copy what TOML can hold, at a third of the cost of `copy.deepcopy`."""
    if isinstance(tables, dict):
        return {key: _copied(value) for key, value in tables.items()}
    return [_copied(value) for value in tables] if isinstance(tables, list) else tables


def _kind(value: Value) -> str:
    return {bool: "bool", int: "int64", float: "float64"}.get(type(value), "str")
